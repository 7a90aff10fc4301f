"""The HTTP/1.1 client of the load: the same result however a response is split, and errors are found."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lmchat_dev.bench import http1
from lmchat_dev.bench.http1 import Connection, Exchange, request

DONE = b"data: [DONE]\n\n"
HI = b'data: {"choices":[{"delta":{"content": "Hi\\n\\n"}}]}\n\n'
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
EVENTS = (ROLE, b": nothing yet\n\n", b"event: two\ndata: lines\n\n", b"data: %b\n\n" % (b"long" * 400))
WHOLE = b'{"choices":[{"message":{"content":"Hi"}}]}'


class Wire(asyncio.Transport):
    """A transport that drops what is written."""

    aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop `data`."""

    def abort(self) -> None:
        self.aborted = True


def read(pieces: Sequence[bytes], *, stream: bool = False, closed: bool = False) -> Exchange:
    """The exchange for a response whose pieces arrive one at each second from 1 on."""

    async def ask() -> Exchange:
        connection = Connection()
        connection.connection_made(Wire())
        exchange = Exchange()
        call_task = asyncio.ensure_future(connection.call(b"", exchange, stream=stream))
        await asyncio.sleep(0)
        for clock[0], piece in enumerate(pieces, 1):
            connection.data_received(piece)
        if closed:
            connection.connection_lost(None)
        async with asyncio.timeout(1):
            await call_task
        return exchange

    clock = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http1, "now", lambda: float(clock[0]))
        return asyncio.run(ask())


def torn(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`data` cut at some places, none of the pieces empty."""
    edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


def framed(framing: str, payload: bytes, cuts: Sequence[int]) -> tuple[bytes, list[int]]:
    """An answer with this payload, and the offset of each payload byte in it."""
    if framing == "chunked":
        answer, places = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx: y\r\n\r\n", list[int]()
        for piece in torn(payload, cuts):
            answer += b"%X;an=extension\r\n" % len(piece)
            places += range(len(answer), len(answer) + len(piece))
            answer += piece + b"\r\n"
        return answer + b"0\r\na: trailer\r\n\r\n", places
    length = b"Content-Length: %d\r\n" % len(payload) if framing == "length" else b""
    head = b"HTTP/1.1 200 OK\r\n%bx: y\r\n\r\n" % length
    return head + payload, [*range(len(head), len(head) + len(payload))]


FRAMINGS = st.sampled_from(["length", "chunked", "until closed"])
CUTS = st.lists(st.integers(0, 1 << 16), max_size=20)


@settings(deadline=None)
@given(FRAMINGS, st.lists(st.sampled_from(EVENTS), max_size=6), st.booleans(), CUTS, CUTS)
def test_streams(framing: str, before: list[bytes], content: bool, chunks: list[int], reads: list[int]) -> None:
    payload = b"".join([*before, *[HI, ROLE] * content, DONE])
    answer, places = framed(framing, payload, chunks)
    pieces = torn(answer, reads)
    edges = [*accumulate(map(len, pieces))]

    def received_at(at: int) -> float:
        """The time at which this byte of the payload arrived."""
        return float(bisect_right(edges, places[at]) + 1)

    exchange = read(pieces, stream=True, closed=framing == "until closed")
    assert exchange.arrivals == [
        *Counter(received_at(end.end() - 1) for end in re.finditer(b"\n\n", payload)).items()
    ]
    assert exchange.events == sum(events for _, events in exchange.arrivals)
    assert exchange.content is content
    assert exchange.first == (received_at(payload.index(b'"Hi') + 1) if content else 0)
    assert (exchange.sent, exchange.ended, exchange.status) == (0, len(pieces), 200)
    assert payload.endswith(exchange.body)
    assert len(exchange.body) >= min(len(payload), 1024)


@settings(deadline=None)
@given(FRAMINGS, CUTS, CUTS)
def test_whole_answers(framing: str, chunks: list[int], reads: list[int]) -> None:
    pieces = torn(framed(framing, WHOLE, chunks)[0], reads)
    exchange = read(pieces, closed=framing == "until closed")
    assert (exchange.status, exchange.body, exchange.content, exchange.arrivals) == (200, WHOLE, True, [])
    assert exchange.first == exchange.ended == len(pieces)


@pytest.mark.parametrize(
    ("status", "body", "stream", "problem"),
    [
        (200, WHOLE, False, ""),
        (200, b'{"choices":[{"message":{"content":null}}]}', False, "no content: "),
        (200, b"", False, "no content: "),
        (500, b'{"error": "oh"}', False, 'status 500: {"error": "oh"}'),
        (500, WHOLE, False, "status 500: "),
        (200, ROLE + HI + DONE, True, ""),
        (200, ROLE + HI + ROLE + DONE, True, ""),
        (429, ROLE + HI + DONE, True, "status 429: "),
        (200, ROLE + ROLE + DONE, True, "no content: "),
        (200, ROLE + HI + ROLE, True, "the stream did not end in [DONE]: "),
        (200, DONE + HI + ROLE, True, "the stream did not end in [DONE]: "),
        (200, ROLE + HI + DONE[:-1], True, "the stream did not end in [DONE]: "),
        (200, HI + DONE, True, "2 events instead of 3"),
    ],
)
def test_problems(status: int, body: bytes, stream: bool, problem: str) -> None:
    exchange = read([b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)], stream=stream)
    exchange.check(stream=stream, min_events=3)
    assert exchange.problem.startswith(problem)
    assert bool(exchange.problem) == bool(problem)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("missing", [1, len(DONE), 10_000])
def test_a_connection_lost_before_the_end(framing: str, missing: int) -> None:
    answer, _ = framed(framing, ROLE + HI + DONE, [])
    with pytest.raises(ConnectionResetError):
        read([piece for piece in [answer[:-missing]] if piece], stream=True, closed=True)


async def test_hanging_up() -> None:
    wire, connection, exchange = Wire(), Connection(), Exchange()
    connection.connection_made(wire)
    call_task = asyncio.ensure_future(connection.call(b"", exchange, stream=False))
    await asyncio.sleep(0)
    call_task.cancel()
    await asyncio.wait((call_task,))
    assert wire.aborted
    assert connection.closed


async def test_bytes_after_the_end_close_the_connection() -> None:
    connection, answer = Connection(), framed("length", WHOLE, [])[0]
    connection.connection_made(Wire())
    for _ in range(2):
        call_task = asyncio.ensure_future(connection.call(b"", Exchange(), stream=False))
        await asyncio.sleep(0)
        connection.data_received(answer)
        await call_task
        assert not connection.closed
    connection.data_received(b"x")
    assert connection.closed


def test_a_request() -> None:
    assert request("/v1", {"a": "b"}, "ü".encode()) == (
        b"POST /v1 HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\na: b\r\n"
        b"content-length: 2\r\n\r\n\xc3\xbc"
    )
