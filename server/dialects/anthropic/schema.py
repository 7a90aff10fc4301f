"""JSON Schemas in the part of JSON Schema that Anthropic's structured outputs take.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
Anthropic's SDKs do the same: what cannot be enforced is told to the model in the
description. Whoever needs it enforced validates the answer.
"""

from __future__ import annotations

from typing import Any

from server.chat.openai_json import encode_text

#: Answered with a 400; moved to the description.
_TOLD = frozenset(
    {
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
        "maxItems", "uniqueItems", "contains", "minContains", "maxContains", "prefixItems", "minProperties",
        "maxProperties", "propertyNames", "not", "if", "then", "else", "dependentRequired", "dependentSchemas",
    }
)  # fmt: skip
#: Say nothing about the answer.
_SILENT = frozenset({"$schema", "$id", "$comment"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_MAPS = frozenset({"properties", "$defs", "definitions"})
_LISTS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}


class InexpressibleError(ValueError):
    """The schema allows what Anthropic cannot: an object with keys of its own choosing."""


def strict(schema: Any) -> Any:
    """`schema` as Anthropic takes it. Every answer that fits the result's structure fits `schema`'s.

    Raises InexpressibleError.
    """
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _SILENT:
            continue
        if (
            key in _TOLD
            or (key == "format" and value not in _FORMATS)
            or (key == "minItems" and value not in (0, 1))
        ):
            told[key] = value
        elif key in _MAPS and isinstance(value, dict):
            out[key] = {name: strict(item) for name, item in value.items()}
        elif key in _LISTS and isinstance(value, list):
            out[_LISTS[key]] = [strict(item) for item in value]
        else:
            out[key] = strict(value) if key == "items" else value
    if "object" in (schema.get("type"), *_types(schema)) or "properties" in schema:
        _close(schema, out)
    if told:
        notes = ", ".join(f"{key}: {encode_text(value)}" for key, value in told.items())
        out["description"] = "\n\n".join(filter(None, (out.get("description"), f"{{{notes}}}")))
    return out


def _types(schema: dict[str, Any]) -> list[Any]:
    types = schema.get("type")
    return types if isinstance(types, list) else []


def _close(schema: dict[str, Any], out: dict[str, Any]) -> None:
    """Anthropic wants every object closed, which narrows one with properties and empties one without."""
    extra = schema.get("additionalProperties")
    free = isinstance(extra, dict) or "patternProperties" in schema
    if free or (extra is not False and "properties" not in schema):
        raise InexpressibleError("objects with keys of the model's choosing")
    out["additionalProperties"] = False
