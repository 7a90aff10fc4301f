"""The mock: the response to each kind of model name, over a real socket, and the counters."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from lmchat_dev.bench import dialect, mock
from lmchat_dev.bench.http1 import Connection, Exchange, request
from lmchat_dev.bench.mock import Stats

USAGE = {"stream_options": {"include_usage": True}}


def post(model: str, *, stream: bool = False, **more: object) -> bytes:
    return request("/v1/chat/completions", {}, msgspec.json.encode({"model": model, "stream": stream, **more}))


async def ask(port: int, data: bytes, *, stream: bool = False) -> Exchange:
    connection, exchange = await Connection.open(port), Exchange()
    try:
        async with asyncio.timeout(2):
            await connection.call(data, exchange, stream=stream)
    except ConnectionResetError:
        exchange.problem = "reset"
    finally:
        connection.close()
    return exchange


async def stats(port: int) -> Stats:
    return msgspec.json.decode((await ask(port, b"GET /stats HTTP/1.1\r\n\r\n")).body, type=Stats)


async def settled(port: int, *, running: int) -> Stats:
    """The mock's counters once `running` calls are in progress."""
    async with asyncio.timeout(2):
        while (now := await stats(port)).running != running:
            pass
    return now


@pytest.mark.parametrize(
    ("model", "status", "body", "seconds"),
    [
        ("unary", 200, dialect.completion(20), 0),
        ("fast-30", 200, dialect.completion(30), 0),
        ("slow-20", 200, dialect.completion(20), 0.02),
        ("status-429", 429, dialect.error(429), 0),
        ("status-500", 500, dialect.error(500), 0),
        ("nothing-of-it", 404, dialect.error(404), 0),
    ],
)
async def test_whole_answers(mock_port: int, model: str, status: int, body: bytes, seconds: float) -> None:
    exchange = await ask(mock_port, post(model))
    assert (exchange.status, exchange.body, exchange.content) == (status, body, status == 200)
    assert exchange.ended - exchange.sent >= seconds


@pytest.mark.parametrize(
    ("model", "more", "events", "seconds"),
    [
        # The role, finish and [DONE] are events beside the tokens; in pieces the last of them come together.
        ("unary", {}, 20 + 3, 0),
        ("fast-50", {}, 50 + 3, 0),
        ("fast-50", USAGE, 50 + 4, 0),
        ("slow-20", {}, 20 + 3, 0.02),
        ("paced-100", {"max_tokens": 3}, 3 + 3, 3 * 0.01),
        ("paced-500", {"max_tokens": 9, "max_completion_tokens": 3, **USAGE}, 3 + 4, 3 * 0.002),
        ("burst-100", {"max_tokens": 20}, 20 + 3, 2 * 0.01),
    ],
)
async def test_streams(mock_port: int, model: str, more: dict[str, object], events: int, seconds: float) -> None:
    exchange = await ask(mock_port, post(model, stream=True, **more), stream=True)
    exchange.check(stream=True)
    assert (exchange.problem, exchange.events) == ("", events)
    assert exchange.ended - exchange.sent >= seconds


@pytest.mark.parametrize(
    ("model", "problem", "end"),
    [
        ("cut-5", "reset", dialect.events(5)[5]),
        ("broken-5", "", b"data: %b\n\n" % dialect.error(500)),
    ],
)
async def test_streams_that_break(mock_port: int, model: str, problem: str, end: bytes) -> None:
    exchange = await ask(mock_port, post(model, stream=True), stream=True)
    assert (exchange.problem, exchange.events) == (problem, 1 + 5 + (not problem))
    assert exchange.body.endswith(end)
    now = await settled(mock_port, running=0)
    assert (now.requests, now.abandoned, now.connections) == (1, 0, 0)


async def test_stats_of_a_stream_that_is_held_and_left(mock_port: int) -> None:
    exchange = Exchange()
    connection = await Connection.open(mock_port)
    held = asyncio.ensure_future(connection.call(post("held", stream=True), exchange, stream=True))
    now = await settled(mock_port, running=1)
    assert now == Stats(connections=1, running=1, requests=1, abandoned=0)
    while not exchange.content:
        await asyncio.wait((held,), timeout=0.001)
    assert (exchange.events, exchange.ended) == (2, 0)
    held.cancel()
    now = await settled(mock_port, running=0)
    assert now == Stats(connections=0, running=0, requests=1, abandoned=1)


async def test_a_call_that_was_left_is_not_answered_later(mock_port: int) -> None:
    left = asyncio.ensure_future(ask(mock_port, post("slow-50")))
    await settled(mock_port, running=1)
    left.cancel()
    await settled(mock_port, running=0)
    await ask(mock_port, post("slow-60"))
    assert await stats(mock_port) == Stats(connections=0, running=0, requests=2, abandoned=1)


class Wire(asyncio.Transport):
    """A transport whose buffer fills until `drain`, as with a caller who reads slowly."""

    def __init__(self, protocol: mock.Connection) -> None:
        super().__init__()
        self.protocol = protocol
        self.written, self.waiting = b"", 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limit = high or 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        self.waiting += len(data)
        if self.waiting > self.limit:
            self.protocol.pause_writing()

    def drain(self) -> None:
        self.waiting = 0
        self.protocol.resume_writing()


async def test_calls_at_once_of_a_caller_who_sends_and_reads_slowly() -> None:
    stats = Stats()
    connection = mock.Connection(stats)
    wire = Wire(connection)
    connection.connection_made(wire)
    for byte in post("fast-500", stream=True) + post("unary") + post("fast-7"):
        connection.data_received(bytes([byte]))
    for _ in range(50):
        for _ in range(20):
            await asyncio.sleep(0)  # a turn of the loop
        assert wire.waiting < mock.BUFFER + 4096
        wire.drain()
    assert (stats.requests, stats.running) == (3, 0)
    whole = wire.written.index(dialect.completion(20))
    assert wire.written[:whole].count(b"data: ") == 500 + 3
    assert wire.written.endswith(dialect.completion(7))
