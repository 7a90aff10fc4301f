"""The `*_json` fields of the contract, read for Gemini."""

from __future__ import annotations

from typing import Any

import msgspec

from server.chat.openai_json import decode_json
from server.errors import InvalidRequest


def json_object(text: str) -> dict[str, Any]:
    """The object in one of the contract's `*_json` fields; empty where it is none. Raises InvalidRequest."""
    try:
        value = decode_json(text) if text else {}
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"A field of JSON text does not hold JSON: {error}") from None
    return value if value.__class__ is dict else {}
