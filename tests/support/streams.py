"""Streams as providers send them: events as JSON in, bytes out, one writer per dialect; splitting of bytes."""

from __future__ import annotations

import json
import struct
from binascii import crc32
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

#: One event's data: an object, or text (`[DONE]`, or invalid JSON).
Event = dict[str, Any] | str | bytes


def _data(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()


def openai(event: Event) -> bytes:
    """`data:` and an empty line."""
    return b"data: %b\n\n" % _data(event)


def anthropic(event: Event) -> bytes:
    """`event:` with the type, `data:` and an empty line."""
    return (f"event: {event['type']}\n".encode() if isinstance(event, dict) else b"") + openai(event)


def gemini(event: Event) -> bytes:
    """Google ends its lines with CRLF."""
    return openai(event).replace(b"\n", b"\r\n")


def bedrock(event: Event) -> bytes:
    """A frame of `{"<event type>": payload}` or `{"exception": {"<name>": payload}}`; payloads may be bytes."""
    assert isinstance(event, dict)
    [(kind, payload)] = event.items()
    if kind != "exception":
        return frame_of_event(kind, payload)
    [(name, payload)] = payload.items()
    return frame_of_exception(name, payload)


def frame_of_event(kind: str, payload: Any) -> bytes:
    """A frame of ConverseStream."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, _data(payload))


def frame_of_exception(kind: str, payload: Any) -> bytes:
    """An exception frame."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, _data(payload))


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One frame, built after the specification. https://smithy.io/2.0/aws/amazon-eventstream.html"""
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack("!I", crc32(prelude)) + head + payload
    return message + struct.pack("!I", crc32(message))


#: By dialect: the bytes of one event.
WRITERS: Mapping[str, Callable[[Event], bytes]] = {
    "openai": openai,
    "anthropic": anthropic,
    "gemini": gemini,
    "bedrock": bedrock,
}


def written(dialect: str, events: Sequence[Event]) -> list[bytes]:
    """The bytes of each event."""
    return [WRITERS[dialect](event) for event in events]


def torn(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` cut at these places, which are taken modulo its length."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
