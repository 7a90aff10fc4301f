"""Server-sent events: split and joined at any byte, in every spelling."""

from __future__ import annotations

import re
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import ProviderError, Reason
from server.wire.sse import MAX_EVENT_LINES, Event, SSEDecoder


def torn(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at some places; equal places give empty pieces."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def read(*pieces: bytes) -> list[Event]:
    decoder = SSEDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close()


def data(*payloads: str) -> list[Event]:
    return [Event("", payload.encode()) for payload in payloads]


STREAMS: list[tuple[str, bytes, list[Event]]] = [
    ("nothing", b"", []),
    ("one", b"data: a\n\n", data("a")),
    ("two", b"data: a\n\ndata: b\n\n", data("a", "b")),
    ("CRLF", b"data: a\r\n\r\ndata: b\r\n\r\n", data("a", "b")),
    ("CR", b"data: a\r\rdata: b\r\r", data("a", "b")),
    ("mixed line ends", b"data: a\r\n\ndata: b\r\r\ndata: c\n\r", data("a", "b", "c")),
    ("a BOM", b"\xef\xbb\xbfdata: a\n\n", data("a")),
    ("a BOM before a blank line", b"\xef\xbb\xbf\n\ndata: a\n\n", data("a")),
    ("a BOM is one only at the start", b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n", data("a", "c")),
    ("two BOMs are one too many", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    ("comments", b": keep-alive\n\ndata: a\n: in between\ndata: b\n\n:\n\n", data("a\nb")),
    ("several data lines", b'data: {\ndata: "x": 1\ndata: }\n\n', data('{\n"x": 1\n}')),
    ("no space", b"data:a\n\n", data("a")),
    ("one space is dropped", b"data:   a \n\n", data("  a ")),
    ("empty data", b"data:\n\n", data("")),
    ("data without a colon", b"data\n\n", data("")),
    ("empty lines of data", b"data:\ndata:\n\n", data("\n")),
    ("a colon in the data", b'data: {"a": 1}\n\n', data('{"a": 1}')),
    ("an event type", b"event: error\ndata: a\n\ndata: b\n\n", [Event("error", b"a"), Event("", b"b")]),
    ("a type after the data", b"data: a\nevent: ping\n\n", [Event("ping", b"a")]),
    ("a type without data", b"event: ping\n\ndata: a\n\n", data("a")),
    ("the last type counts", b"event: a\nevent: b\ndata: c\n\n", [Event("b", b"c")]),
    ("a type that is not UTF-8", b"event: \xff\ndata: a\n\n", [Event("\ufffd", b"a")]),
    ("ids and retries", b"id: 7\nretry: 10\ndata: a\n\n", data("a")),
    ("other fields", b"datum: x\nda ta: y\n{\ndata: a\n\n", data("a")),
    ("many blank lines", b"\n\n\n\ndata: a\n\n\n\n\n", data("a")),
    ("an indented field", b"  data: a\n\n", data("a")),
    ("no blank line at the end", b"data: a\n\ndata: b\n", data("a", "b")),
    ("no line end at the end", b"data: a\n\ndata: b", data("a", "b")),
    ("a CR at the end", b"data: a\r", data("a")),
    ("UTF-8", "data: Zürich 🏔\n\n".encode(), data("Zürich 🏔")),
    (
        "other line ends of Unicode are none",
        "data: a\u2028b\u0085c\x0bd\x0ce\n\n".encode(),
        data("a\u2028b\u0085c\x0bd\x0ce"),
    ),
    ("bytes that are not UTF-8", b"data: \xff\xfe\n\n", [Event("", b"\xff\xfe")]),
    ("a page", b"<!doctype html>\n<html>\n</html>\n", []),
]


@pytest.mark.parametrize(("stream", "events"), [row[1:] for row in STREAMS], ids=[row[0] for row in STREAMS])
def test_streams(stream: bytes, events: list[Event]) -> None:
    assert read(stream) == events
    assert read(*(bytes([byte]) for byte in stream)) == events
    for cut in range(len(stream)):
        assert read(stream[:cut], b"", stream[cut:]) == events


@pytest.mark.parametrize(
    ("end", "last"), [(b"\n\n", b"\n"), (b"\r\n\r\n", b"\n"), (b"\r\r", b"\r"), (b"\r\n\r", b"\r")]
)
def test_an_event_is_given_with_the_first_byte_that_ends_it(end: bytes, last: bytes) -> None:
    decoder = SSEDecoder()
    early = len(end) - (2 if end == b"\r\n\r\n" else 1)
    assert decoder.feed(b"data: a" + end[:early]) == []
    assert decoder.feed(end[early : early + 1]) == data("a")
    assert decoder.feed(end[early + 1 :]) == []
    assert decoder.close() == []


def test_close_gives_the_open_event_once() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a") == []
    assert decoder.close() == data("a")
    assert decoder.close() == []


def test_a_long_line_in_small_pieces() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: ") == []
    for _ in range(20_000):
        assert decoder.feed(b"x" * 50) == []
    [event] = decoder.feed(b"\n\n")
    assert event.data == b"x" * 1_000_000


# Any bytes, compared with the specification's algorithm


def by_the_letter(stream: bytes) -> list[Event]:
    """The specification's algorithm on all bytes, with the two deviations of sse.py."""
    events, buffer, kind = [], b"", ""
    for line in [*re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf")), b""]:
        if line == b"":
            if buffer:
                events.append(Event(kind, buffer[:-1]))
            buffer, kind = b"", ""
            continue
        name, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if name.strip() == b"data":
            buffer += value + b"\n"
        elif name.strip() == b"event":
            kind = value.decode(errors="replace")
    return events


PIECES = st.sampled_from(
    [
        b"data",
        b"event",
        b"id",
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\xef\xbb\xbf",
        b"[DONE]",
        b"x",
        b"\xc3",
        b"\xbc",
    ]
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.lists(st.integers(0, 100), max_size=8))
@settings(deadline=None, max_examples=300)
def test_any_split_of_any_bytes(stream: bytes, cuts: list[int]) -> None:
    assert read(*torn(stream, cuts)) == by_the_letter(stream)


LINE_END = st.sampled_from([b"\n", b"\r\n", b"\r"])
PAYLOAD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=6)


@given(
    st.data(),
    st.lists(st.tuples(st.sampled_from(["", "error"]), st.lists(PAYLOAD, min_size=1, max_size=3)), max_size=4),
)
@settings(deadline=None, max_examples=150)
def test_what_was_written_is_read(draw: st.DataObject, written: list[tuple[str, list[str]]]) -> None:
    end = draw.draw(LINE_END)
    noise = draw.draw(st.sampled_from([b"", b": ping" + end + end, b"id: 1" + end]))
    stream = draw.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    for kind, lines in written:
        stream += noise + (b"event: " + kind.encode() + end if kind else b"")
        stream += b"".join(b"data: " + line.encode() + end for line in lines) + end
    cuts = draw.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert read(*torn(stream, cuts)) == [Event(kind, "\n".join(lines).encode()) for kind, lines in written]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"data: ", b"x" * 90, b"x" * 90], id="a line without an end"),
        pytest.param([b": ", b"x" * 200], id="a comment without an end"),
        pytest.param([b"data: x\n"] * 200, id="an event without an end"),
        pytest.param([b"data:\n" * 200], id="an event of empty lines"),
        pytest.param([b"data: " + b"x" * 200 + b"\n\n"], id="an event in one piece"),
    ],
)
def test_an_event_that_is_too_large(pieces: list[bytes]) -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    with pytest.raises(ProviderError, match="more than 100 bytes") as caught:
        [decoder.feed(piece) for piece in pieces]
    assert caught.value.reason is Reason.UPSTREAM_INVALID_RESPONSE


def test_the_limit_is_one_events() -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    for _ in range(50):
        assert decoder.feed(b"data: " + b"x" * 90 + b"\n\n") == [Event("", b"x" * 90)]


def test_what_is_kept_of_a_line_takes_no_more_than_its_bytes() -> None:
    """However small the pieces: time and memory are linear in them."""
    decoder = SSEDecoder()
    for _ in range(100_000):
        decoder.feed(b"xy")
    assert sys.getsizeof(decoder._partial) < 2 * 200_000


def test_an_event_has_a_limit_of_lines() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data\n" * MAX_EVENT_LINES + b"\n")
    with pytest.raises(ProviderError, match="more than 100000 lines"):
        decoder.feed(b"data\n" * (MAX_EVENT_LINES + 1))
