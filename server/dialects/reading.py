"""Decodes providers' JSON. Undecodable JSON is a ProviderError; half a character in it is replaced.

A model may be cut off between the two halves of a surrogate pair, or a proxy may cut the bytes of a character.
JSON with such a half is read with U+FFFD in its place, as the Unicode standard recommends.
https://www.unicode.org/versions/latest/core-spec/chapter-3/
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec

from server.chat.openai_json import decode_json
from server.chat.openai_json.surrogates import with_whole_pairs
from server.dialects import errors as failures
from server.errors import InvalidRequest, ProviderError

#: What code that reads JSON raises where the JSON is not of the documented shape.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    InvalidRequest,
    LookupError,
    msgspec.MsgspecError,
    RecursionError,
    TypeError,
    ValueError,
)

#: Bytes of a body that go into the log.
_EXCERPT = 500


def read_json(data: bytes) -> Any:
    """The JSON value in a body or an event. Raises ProviderError."""
    try:
        return decode_json(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return decode_json(with_whole_characters(data))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise failures.invalid_response(f"not JSON: {data[:_EXCERPT]!r}") from None


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object in a body or an event. Raises ProviderError."""
    obj = read_json(data)
    if obj.__class__ is not dict:
        raise failures.invalid_response(f"not a JSON object: {data[:_EXCERPT]!r}")
    found: dict[str, Any] = obj
    return found


def read_error_body(data: bytes) -> Any:
    """The JSON value in an error's body, the first of a list; None for HTML, text or nothing."""
    try:
        obj = decode_json(with_whole_characters(data))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return obj[0] if isinstance(obj, list) and obj else obj


def with_whole_characters(data: bytes) -> str:
    """JSON text with U+FFFD for bytes that are not UTF-8 and for escaped halves of surrogate pairs."""
    return with_whole_pairs(data.decode("utf-8", "replace"))


@contextlib.contextmanager
def reading(data: bytes) -> Iterator[None]:
    """Whatever code in this block raises over the provider's `data` is raised as a ProviderError."""
    try:
        yield
    except UNREADABLE as error:
        raise unreadable(error, data) from None


def unreadable(error: Exception, data: bytes = b"") -> ProviderError:
    """The ProviderError for an exception of UNREADABLE."""
    return failures.invalid_response(f"{type(error).__name__}: {error}: {data[:_EXCERPT]!r}")
