"""JSON Schemas in the part of JSON Schema that Gemini's `responseJsonSchema` and `parametersJsonSchema` take.

https://ai.google.dev/api/generate-content#v1beta.GenerationConfig
What Gemini does not know it ignores, so it stays; what is said here is only what
it would refuse, and what can be said in words that it does know.
"""

from __future__ import annotations

from typing import Any

#: Names of the author's choosing -> schemas.
_MAPS = {"properties": "properties", "$defs": "$defs", "definitions": "$defs"}
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMAS = frozenset({"items", "additionalProperties"})
_TYPES = {str: "string", int: "integer", float: "number"}


def adapt(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` as Gemini takes it; the argument is left alone."""
    return _adapt(schema, schema, frozenset())  # type: ignore[no-any-return]


def parameters(schema: dict[str, Any]) -> dict[str, Any]:
    """A function's parameters: always an object, or the call is refused."""
    return {"type": "object", **adapt(schema)}


def _adapt(schema: Any, root: dict[str, Any], inlined: frozenset[str]) -> Any:
    if schema.__class__ is not dict:
        return schema
    match schema.get("allOf"):
        case [dict(only)]:
            schema = {**only, **{key: value for key, value in schema.items() if key != "allOf"}}
    ref = schema.get("$ref")
    if ref.__class__ is str and (schema is root or not all(key.startswith("$") for key in schema)):
        # Beside `$ref` nothing may stand but `$...`; so the target goes in its place, unless it is inside itself.
        target = _resolve(root, ref)
        if target.__class__ is dict and ref not in inlined:
            siblings = {key: value for key, value in schema.items() if key != "$ref"}
            return _adapt({**target, **siblings}, root, inlined | {ref})
        schema = {key: value for key, value in schema.items() if key.startswith("$")}
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and value.__class__ is str:
            out[key] = value.replace("#/definitions/", "#/$defs/", 1)
        elif key == "const" and value.__class__ in _TYPES:  # not known; an enum of one is
            out["enum"] = [value]
            out.setdefault("type", _TYPES[value.__class__])
        elif key in _MAPS and value.__class__ is dict:
            out[_MAPS[key]] = {name: _adapt(item, root, inlined) for name, item in value.items()}
        elif key in _LISTS and value.__class__ is list:
            out[key] = [_adapt(item, root, inlined) for item in value]
        elif key in _SCHEMAS:
            out[key] = _adapt(value, root, inlined)
        elif key != "$schema":
            out[key] = value
    return out


def _resolve(root: dict[str, Any], ref: str) -> Any:
    """What a reference within the document points to; None for any other."""
    found: Any = root
    for segment in ref.removeprefix("#/").split("/"):
        key = segment.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if found.__class__ is dict else None
    return found
