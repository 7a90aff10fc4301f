"""Descriptions of JSON Schemas."""

from __future__ import annotations

from typing import Any


def described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    """`schema` with the description of the `response_format` before its own description."""
    texts = [text for text in (description, schema.get("description")) if isinstance(text, str) and text]
    return {**schema, "description": "\n\n".join(texts)} if description else schema
