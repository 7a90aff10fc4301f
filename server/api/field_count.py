"""Counts the fields of a protobuf message on its bytes, before it is parsed.

Parsing makes an object of some 100 bytes of every nested message, however empty: several GB of 60 MB that are
nothing but empty messages. Here a request like that is refused after MAX_FIELDS of them. Fields of bytes and text
are skipped by their length, so that the time is bounded by the count, not by the size.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from server.chat.limits import MAX_FIELDS, MAX_TEXT_BYTES, too_large

Nested = dict[int, "Nested"]
"""The tags of a message's fields that hold messages -> the same for these; shared, and so recursive, by type. Of
those that hold text -> _TEXT."""

_TEXT: Nested = {}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
#: Bytes of a field of text from which it counts towards MAX_TEXT_BYTES.
_MIN_TEXT_BYTES = 256
_MAX_VARINT_BYTES = 10


def nested(message: Descriptor, known: dict[str, Nested] | None = None) -> Nested:
    """The tags of `message` that `check_fields` has to look into."""
    known = {} if known is None else known
    if message.full_name not in known:
        tags = known[message.full_name] = {}
        for field in message.fields:
            if field.message_type is not None:
                tags[field.number << 3 | _LENGTH] = nested(field.message_type, known)
            elif field.type == FieldDescriptor.TYPE_STRING:
                tags[field.number << 3 | _LENGTH] = _TEXT
    return known[message.full_name]


def check_fields(data: bytes, tags: Nested, most: int = MAX_FIELDS) -> None:
    """Raise InvalidRequest for a message of more than `most` fields, nested ones included, or of too much text.

    Raises DecodeError for some of the bytes that are no message.
    """
    try:
        _check(data, tags, most)
    except IndexError:
        raise DecodeError("truncated") from None


def _check(data: bytes, tags: Nested, most: int) -> None:
    place, end = 0, len(data)
    outer: list[tuple[int, Nested]] = []  # the ends and the tags of the messages around this one
    text, has_much_text = 0, end > MAX_TEXT_BYTES
    for _ in range(most + 1):
        while place >= end:
            if place > end:
                raise DecodeError("a field is longer than its message")
            if not outer:
                return
            end, tags = outer.pop()
        tag = data[place]
        place += 1
        if tag > 0x7F:
            tag, place = _varint(data, place - 1)
        kind = tag & 7
        if kind == _LENGTH:
            length = data[place]
            place += 1
            if length > 0x7F:
                length, place = _varint(data, place - 1)
            below = tags.get(tag)
            if below is not None and below is not _TEXT:
                outer.append((end, tags))
                if place + length > end:
                    raise DecodeError("a message is longer than the one around it")
                end, tags = place + length, below
                continue
            place += length
            if below is not None and has_much_text and length >= _MIN_TEXT_BYTES:
                text += 0 if data[place - length : place].isascii() else length
                if text > MAX_TEXT_BYTES:
                    raise too_large(f"more than {MAX_TEXT_BYTES} bytes of text that is not ASCII")
        elif kind == _VARINT:
            place = _varint(data, place)[1]
        elif kind in (_FIXED32, _FIXED64):
            place += 4 if kind == _FIXED32 else 8
        else:
            raise DecodeError("a group: no message has any")
    raise too_large(f"more than {most} fields")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at `place`, and where it ends. Raises DecodeError, or IndexError at the end of `data`."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        byte = data[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise DecodeError("a number of more than 10 bytes")
