"""JSON Schemas in the subset of JSON Schema that `responseJsonSchema` and `parametersJsonSchema` take. Pure.

https://ai.google.dev/api/generate-content#v1beta.GenerationConfig
Gemini ignores keywords that it does not know, so they stay. Only what it would refuse is
rewritten, and what it would ignore though it knows another keyword for it.
Time and size are linear in the schema.
"""

from __future__ import annotations

from typing import Any

from server.chat.openai_json import encode_text
from server.dialects.schemas import of_object
from server.errors import InvalidRequest

#: Keywords whose value maps names to schemas -> what they are sent as.
_MAPS = {"properties": "properties", "$defs": "$defs", "definitions": "$defs"}
#: Keywords whose value is a list of schemas.
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
#: Keywords whose value is a schema.
_SCHEMAS = frozenset({"items", "additionalProperties"})
_TYPES = {str: "string", int: "integer", float: "number"}

#: Characters of JSON by which copies of referenced schemas may enlarge one schema.
MAX_COPIED = 64 * 1024
#: References to references that are followed.
_MAX_HOPS = 16


def adapt(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` as Gemini takes it; the argument is not changed. Raises InvalidRequest where it is too deep."""
    try:
        return _Adapter(schema).root()
    except RecursionError:
        raise InvalidRequest("A JSON Schema is nested too deeply.") from None


def parameters(schema: dict[str, Any]) -> dict[str, Any]:
    """A function's parameters, whose type must be an object."""
    return of_object(adapt(schema))


class _Adapter:
    """Rewrites one schema, in time linear in it.

    Beside `$ref` Gemini takes only keywords that begin with `$`. A reference with others beside it, such as a
    description, is replaced by a copy of what it refers to, in which references stay references; once the copies
    reach MAX_COPIED, the keywords beside a reference are left out instead. What is read to follow references
    counts as copied: many references may lead through the same large schemas to nowhere.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._copied = 0

    def root(self) -> dict[str, Any]:
        """The adapted schema. The root must not be a reference, so it is replaced whatever its size."""
        root = self._dereferenced(self._root) or self._root
        self._copied = 0
        return self._adapt(root, copying=False)  # type: ignore[no-any-return]

    def _dereferenced(self, schema: dict[str, Any]) -> dict[str, Any] | None:
        """`schema` merged with what it refers to; None where that leads nowhere, or too far."""
        for _ in range(_MAX_HOPS):
            ref = schema.get("$ref")
            if ref.__class__ is not str:
                return schema
            target = _resolve(self._root, str(ref))
            if target.__class__ is not dict:
                return None
            self._copied += len(ref) + len(target) + len(schema)
            schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        return None

    def _adapt(self, schema: Any, *, copying: bool) -> Any:
        """One schema; anything else is returned as it is. `copying`: it is part of a copy."""
        if schema.__class__ is not dict:
            return schema
        match schema.get("allOf"):
            case [dict(only)]:
                schema = {**only, **{key: value for key, value in schema.items() if key != "allOf"}}
        if schema.get("$ref").__class__ is str and not all(key.startswith("$") for key in schema):
            copy = None if copying else self._copy(schema)
            if copy is not None:
                return copy
            schema = {key: value for key, value in schema.items() if key.startswith("$")}
        return self._keywords(schema, copying)

    def _copy(self, schema: dict[str, Any]) -> dict[str, Any] | None:
        """What `schema` refers to, with the keywords beside the reference; None where it cannot be copied."""
        merged = self._dereferenced(schema) if self._copied < MAX_COPIED else None
        if merged is None:
            return None
        self._copied += len(encode_text(merged))
        return self._keywords(merged, copying=True) if self._copied <= MAX_COPIED else None

    def _keywords(self, schema: dict[str, Any], copying: bool) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in schema.items():
            if key == "$ref" and value.__class__ is str:
                out[key] = value.replace("#/definitions/", "#/$defs/", 1)
            elif key == "const" and value.__class__ in _TYPES:  # not known to Gemini; an enum of one is
                out["enum"] = [value]
                out.setdefault("type", _TYPES[value.__class__])
            elif key == "required" and value.__class__ is list and schema.get("properties").__class__ is dict:
                # A name without a property is a 400: "property is not defined".
                # https://github.com/iBUHub/AIStudioToAPI/issues/154
                if names := [name for name in value if name.__class__ is str and name in schema["properties"]]:
                    out[key] = names
            elif key in _MAPS and value.__class__ is dict:
                out[_MAPS[key]] = {name: self._adapt(item, copying=copying) for name, item in value.items()}
            elif key in _LISTS and value.__class__ is list:
                out[key] = [self._adapt(item, copying=copying) for item in value]
            elif key in _SCHEMAS:
                out[key] = self._adapt(value, copying=copying)
            elif key != "$schema":
                out[key] = value
        return out


def _resolve(root: dict[str, Any], ref: str) -> Any:
    """What a reference within the schema points to; None for any other."""
    found: Any = root
    for segment in ref.removeprefix("#/").split("/"):
        key = segment.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if found.__class__ is dict else None
    return found
