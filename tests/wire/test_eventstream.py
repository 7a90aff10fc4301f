"""Event-stream frames: split, joined, corrupt."""

from __future__ import annotations

import base64
import json
import struct
from binascii import crc32
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from server.wire.eventstream import (
    MAX_FRAME_BYTES,
    MAX_FRAME_HEADER_BYTES,
    CorruptStream,
    EventStreamDecoder,
    Frame,
)

RECORDINGS = Path(__file__).parents[3] / "shared/recordings/bedrock"


def frame(payload: bytes, headers: dict[str, str] | None = None, *, raw_headers: bytes = b"") -> bytes:
    """One frame, built after the specification."""
    head = raw_headers
    for name, value in (headers or {}).items():
        head += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack("!I", crc32(prelude))
    message = prelude + head + payload
    return message + struct.pack("!I", crc32(message))


def torn(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at some places."""
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def feed_all(pieces: list[bytes]) -> list[Frame]:
    decoder = EventStreamDecoder()
    return [found for piece in pieces for found in decoder.feed(piece)]


FRAMES = [
    frame(b'{"role":"assistant"}', {":event-type": "messageStart", ":message-type": "event"}),
    frame('{"text":"Zürich 🏔"}'.encode(), {":event-type": "contentBlockDelta", ":message-type": "event"}),
    frame(b"", {}),
    frame(b'{"message":"slow down"}', {":exception-type": "throttlingException", ":message-type": "exception"}),
]


def test_frames() -> None:
    assert feed_all([b"".join(FRAMES)]) == [
        Frame({":event-type": "messageStart", ":message-type": "event"}, b'{"role":"assistant"}'),
        Frame({":event-type": "contentBlockDelta", ":message-type": "event"}, '{"text":"Zürich 🏔"}'.encode()),
        Frame({}, b""),
        Frame(
            {":exception-type": "throttlingException", ":message-type": "exception"}, b'{"message":"slow down"}'
        ),
    ]


def test_every_header_type() -> None:
    raw = b"\x01t\x00\x01f\x01\x01b\x02\xff\x01s\x03\xff\xfe\x01i\x04\x00\x00\x00\x07"
    raw += b"\x01l\x05" + struct.pack("!q", -9) + b"\x01y\x06\x00\x02hi" + b"\x01x\x07\x00\x02ho"
    raw += b"\x01d\x08" + struct.pack("!q", 1700000000000) + b"\x01u\x09" + bytes(range(16))
    [found] = feed_all([frame(b"", raw_headers=raw)])
    assert found.headers == {
        "t": True, "f": False, "b": -1, "s": -2, "i": 7, "l": -9, "y": b"hi", "x": "ho", "d": 1700000000000,
        "u": bytes(range(16)),
    }  # fmt: skip


@given(st.lists(st.integers(0, 10_000)))
def test_any_split_gives_the_same_frames(cuts: list[int]) -> None:
    data = b"".join(FRAMES)
    assert feed_all(torn(data, cuts)) == feed_all([data])


def test_a_frame_is_given_with_its_last_byte() -> None:
    decoder = EventStreamDecoder()
    assert list(decoder.feed(FRAMES[0][:-1])) == []
    assert len(list(decoder.feed(FRAMES[0][-1:]))) == 1


@pytest.mark.parametrize("position", range(len(FRAMES[0])))
def test_a_flipped_bit_never_passes(position: int) -> None:
    data = bytearray(FRAMES[0])
    data[position] ^= 0x04
    decoder = EventStreamDecoder()
    with pytest.raises(CorruptStream, match="corrupt event stream: "):
        list(decoder.feed(bytes(data) + FRAMES[1]))
    with pytest.raises(CorruptStream):  # and nothing after it does
        list(decoder.feed(FRAMES[1]))


def test_what_comes_before_corruption_is_good() -> None:
    frames = EventStreamDecoder().feed(FRAMES[0] + bytes(16))
    assert next(frames).payload == b'{"role":"assistant"}'
    with pytest.raises(CorruptStream):
        next(frames)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 502 Bad Gateway\r\n\r\n", id="not a stream"),
        pytest.param(b'{"message": "no stream at all"}', id="json"),
        pytest.param(frame(b"", raw_headers=b"\x01a\x2a"), id="unknown header type"),
        pytest.param(frame(b"", raw_headers=b"\x09a"), id="header name too short"),
        pytest.param(frame(b"", raw_headers=b"\x01a\x07\x00\x01\xff"), id="header not UTF-8"),
        pytest.param(frame(b"", raw_headers=b"\x01t\x00\x01t\x00"), id="header twice"),
        pytest.param(frame(b"", raw_headers=b"\x01a\x04\x00"), id="header value too short"),
    ],
)
def test_invalid_values(data: bytes) -> None:
    with pytest.raises(CorruptStream):
        list(EventStreamDecoder().feed(data))


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            lambda data: [data[n : n + 64] for n in range(0, len(data), 64)], id="a large frame in pieces"
        ),
        pytest.param(lambda data: [frame(b"a") * 20_000], id="many small frames at once"),
    ],
)
def test_the_buffer_copies_each_byte_once(
    pieces: Callable[[bytes], list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It copies all it holds whenever something is added or taken out: in pieces of 64 bytes, 1 MB was 8 GB."""
    stream = pieces(frame(bytes(1_000_000)))
    held: list[int] = []
    add = EventStreamBuffer.add_data

    def counted(self: Any, data: bytes) -> None:
        add(self, data)
        held.append(len(self._data))

    monkeypatch.setattr(EventStreamBuffer, "add_data", counted)
    assert len(feed_all(stream)) == len(held)
    assert sum(held) == sum(map(len, stream))


def test_headers_of_a_frame_have_a_limit() -> None:
    value = {"a": "b" * (MAX_FRAME_HEADER_BYTES - 5)}
    [found] = feed_all([frame(b"", value)])
    assert found.headers == value
    with pytest.raises(CorruptStream, match=f"the limit is {MAX_FRAME_HEADER_BYTES}"):
        feed_all([frame(b"", {"a": "b" * (MAX_FRAME_HEADER_BYTES - 4)})])


def test_a_frame_that_is_too_large_fails_before_it_is_there() -> None:
    prelude = struct.pack("!II", MAX_FRAME_BYTES + 1, 0)
    with pytest.raises(CorruptStream, match=f"the limit is {MAX_FRAME_BYTES}"):
        feed_all([prelude + struct.pack("!I", crc32(prelude))])


@pytest.mark.parametrize(("total", "headers"), [(0, 0), (8, 0), (12, 0), (16, 200_000), (2**32 - 1, 0)])
def test_lying_lengths(total: int, headers: int) -> None:
    prelude = struct.pack("!II", total, headers)
    with pytest.raises(CorruptStream):
        list(EventStreamDecoder().feed(prelude + struct.pack("!I", crc32(prelude)) + bytes(64)))


def test_recordings() -> None:
    if not RECORDINGS.is_dir():
        pytest.skip("no ../shared/recordings")
    bodies = [
        base64.b64decode(response["body_b64"])
        for path in sorted(RECORDINGS.rglob("*.json"))
        if "body_b64" in (response := json.loads(path.read_bytes())["response"])
    ]
    for body in bodies:
        assert feed_all([body[i : i + 7] for i in range(0, len(body), 7)]) == feed_all([body])
    print(f"{len(bodies)} recorded streams")
    assert len(bodies) == 13
