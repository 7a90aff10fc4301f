"""JSON Schemas in the subset of JSON Schema that Anthropic's structured outputs and tools take. Pure.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
As in Anthropic's SDKs, constraints that cannot be enforced are written into the
description for the model to read; a caller that needs them enforced validates the answer.
Time is linear in the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from server.chat.openai_json import encode_text

#: Answered with a 400; moved to the description.
_UNENFORCEABLE = frozenset(
    {
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
        "maxItems", "uniqueItems", "contains", "minContains", "maxContains", "prefixItems", "minProperties",
        "maxProperties", "propertyNames", "not", "if", "then", "else", "dependentRequired", "dependentSchemas",
    }
)  # fmt: skip
#: Keywords without meaning for an answer; left out.
_ANNOTATIONS = frozenset({"$schema", "$id", "$comment"})
#: Not a set: in a schema anything may stand under `format`.
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
#: Keywords whose value maps names to schemas.
_MAPS = frozenset({"properties", "$defs", "definitions"})
#: Keywords whose value is a list of schemas -> what they are sent as.
_LISTS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
#: Parts of a pattern: an escape, or the start of look-around.
_PATTERN_PARTS = re.compile(r"\\.|\(\?<?[=!]", re.DOTALL)
#: Escapes that are backreferences or word boundaries.
_UNENFORCEABLE_ESCAPES = frozenset(f"\\{letter}" for letter in "bBk123456789")


class InexpressibleError(ValueError):
    """The schema allows what Anthropic cannot enforce; the text completes "Anthropic does not support"."""


# Structured outputs


def strict(schema: Any) -> Any:
    """`schema` as Anthropic takes it. Every answer that fits the result's structure fits `schema`'s.

    Raises InexpressibleError for objects with free keys, recursive schemas, references out of the schema, enums of
    objects or arrays, and patterns with look-around, backreferences or word boundaries.
    """
    if isinstance(schema, dict):
        _check_references(schema)
    try:
        return _strict(schema)
    except RecursionError:
        raise InexpressibleError("schemas nested this deeply") from None


def _strict(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    described: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _ANNOTATIONS:
            continue
        _check_keyword(key, value)
        if (
            key in _UNENFORCEABLE
            or (key == "format" and value not in _FORMATS)
            or (key == "minItems" and value not in (0, 1))
        ):
            described[key] = value
        elif key in _MAPS and isinstance(value, dict):
            out[key] = {name: _strict(item) for name, item in value.items()}
        elif key in _LISTS and isinstance(value, list):
            out[_LISTS[key]] = [_strict(item) for item in value]
        else:
            out[key] = _strict(value) if key == "items" else value
    if "object" in (schema.get("type"), *_types(schema)) or "properties" in schema:
        _close(schema, out)
    if described:
        notes = ", ".join(f"{key}: {encode_text(value)}" for key, value in described.items())
        description = out.get("description")
        described_as = (description, f"{{{notes}}}") if isinstance(description, str) else (f"{{{notes}}}",)
        out["description"] = "\n\n".join(filter(None, described_as))
    return out


def _check_keyword(key: str, value: Any) -> None:
    values = value if key == "enum" and isinstance(value, list) else [value] if key == "const" else []
    if any(isinstance(item, dict | list) for item in values):
        raise InexpressibleError("enums of objects or arrays")
    parts = _PATTERN_PARTS.findall(value) if key == "pattern" and isinstance(value, str) else []
    if any(part.startswith("(") or part in _UNENFORCEABLE_ESCAPES for part in parts):
        raise InexpressibleError("patterns with look-around, backreferences or word boundaries")


def _types(schema: dict[str, Any]) -> list[Any]:
    types = schema.get("type")
    return types if isinstance(types, list) else []


def _close(schema: dict[str, Any], out: dict[str, Any]) -> None:
    """Anthropic requires closed objects: this narrows one with properties and would empty one without."""
    extra = schema.get("additionalProperties")
    free = isinstance(extra, dict) or "patternProperties" in schema
    if free or (extra is not False and "properties" not in schema):
        raise InexpressibleError("objects with free keys")
    out["additionalProperties"] = False


def _check_references(root: dict[str, Any]) -> None:
    """Raise InexpressibleError where a reference leads out of `root`, or a schema contains itself through one.

    A depth-first search over subschemas and what they refer to; one that is reached while it is still open is
    part of a cycle.
    """
    finished: set[int] = set()
    open_ids = {id(root)}
    stack: list[tuple[int, Iterator[dict[str, Any]]]] = [(id(root), _linked(root, root))]
    while stack:
        current, rest = stack[-1]
        child = next(rest, None)
        if child is None:
            stack.pop()
            open_ids.remove(current)
            finished.add(current)
        elif id(child) in open_ids:
            raise InexpressibleError("recursive schemas")
        elif id(child) not in finished:
            open_ids.add(id(child))
            stack.append((id(child), _linked(child, root)))


def _linked(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The subschemas that apply to a value where `schema` does, or to a part of the value."""
    for key, value in schema.items():
        if key == "$ref":
            yield _target(root, value)
        elif key == "properties" and isinstance(value, dict):
            yield from _schemas(value.values())
        elif key in _LISTS and isinstance(value, list):
            yield from _schemas(value)
        elif key == "items":
            yield from _schemas([value])


def _schemas(values: Iterable[Any]) -> Iterator[dict[str, Any]]:
    return (value for value in values if isinstance(value, dict))


def _target(root: dict[str, Any], ref: Any) -> dict[str, Any]:
    """What a reference within `root` points to, by its JSON pointer (RFC 6901)."""
    found: Any = root
    if not isinstance(ref, str) or not ref.startswith("#"):
        raise InexpressibleError("references out of the schema")
    for segment in ref.split("/")[1:]:
        key = segment.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise InexpressibleError(f"the reference {ref[:80]!r}, which points to no schema")
    return found


# Tools

_COMBINED = frozenset({"anyOf", "oneOf", "allOf"})


def tool_input(schema: dict[str, Any]) -> dict[str, Any]:
    """A tool's parameters without `anyOf`, `oneOf` and `allOf` at the root, which are a 400 for tools.

    https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use
    The properties of all alternatives are merged; required is only what every alternative requires. The result
    accepts whatever `schema` accepts, except that a property which some alternatives leave open has to be what
    the others say of it.
    """
    if not _COMBINED & schema.keys():
        return schema
    properties: dict[str, dict[str, Any]] = {}
    required = dict.fromkeys(_names(schema))
    seen = {id(schema)}
    pending = [schema]
    for part in pending:  # grows while it is read
        declared = part.get("properties")
        for name, item in declared.items() if isinstance(declared, dict) else ():
            properties.setdefault(name, {}).setdefault(encode_text(item), item)
        for member in _members(part, schema):
            if id(member) not in seen:
                seen.add(id(member))
                pending.append(member)
    for member in _listed(schema, "allOf", schema):
        required |= dict.fromkeys(_names(member))
    for key in ("anyOf", "oneOf"):
        required |= _required_by_all(_listed(schema, key, schema))
    own = schema.get("properties")
    merged = {name: _either(list(items.values())) for name, items in properties.items()}
    out = {key: value for key, value in schema.items() if key not in _COMBINED and key != "required"}
    out["properties"] = {**merged, **(own if isinstance(own, dict) else {})}
    if required:
        out["required"] = list(required)
    return out


def _members(part: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas that `part` combines, and the one it refers to."""
    yield from _dereferenced([part] if "$ref" in part else [], root)
    for key in _COMBINED:
        yield from _listed(part, key, root)


def _listed(part: dict[str, Any], key: str, root: dict[str, Any]) -> list[dict[str, Any]]:
    listed = part.get(key)
    return list(_dereferenced(_schemas(listed), root)) if isinstance(listed, list) else []


def _dereferenced(schemas: Iterable[dict[str, Any]], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas, and for those with a reference within `root` what it points to."""
    for schema in schemas:
        try:
            yield _target(root, schema["$ref"]) if "$ref" in schema else schema
        except InexpressibleError:
            yield {}


def _names(schema: dict[str, Any]) -> list[str]:
    required = schema.get("required")
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []


def _required_by_all(alternatives: list[dict[str, Any]]) -> dict[str, None]:
    """The names that each of the alternatives requires itself, in the order of the first."""
    distinct = list({id(schema): schema for schema in alternatives}.values())
    counts: dict[str, int] = {}
    for schema in distinct:
        for name in dict.fromkeys(_names(schema)):
            counts[name] = counts.get(name, 0) + 1
    return {name: None for name, count in counts.items() if count == len(distinct)}


def _either(schemas: list[Any]) -> Any:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
