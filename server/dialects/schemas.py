"""What every provider asks of a JSON Schema."""

from __future__ import annotations

from typing import Any

_OBJECT = {"type": "object"}


def described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    """`schema` with the description of the `response_format` before its own description."""
    texts = [text for text in (description, schema.get("description")) if isinstance(text, str) and text]
    return {**schema, "description": "\n\n".join(texts)} if description else schema


def of_object(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a function's parameters with the type `object` where it has none, or several.

    https://github.com/diegosouzapw/OmniRoute/pull/3360
    """
    return schema if isinstance(schema.get("type"), str) else {**_OBJECT, **schema, **_OBJECT}
