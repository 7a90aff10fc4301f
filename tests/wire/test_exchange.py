"""Responses, fed in any pieces to an exchange on a simulated socket."""

from __future__ import annotations

import asyncio
import gc
import gzip
import weakref
import zlib
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wire.connection import MAX_HEADER_BYTES, MAX_HEADERS, Connection
from server.wire.decompress import MAX_MEMBERS, PIECE_SIZE
from server.wire.exchange import MAX_UNREAD_BYTES, Exchange

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-a: 1\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-a: 1\r\n\r\n"
    b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nx-trailer: 1\r\n\r\n"
)
TO_THE_END = b"HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\nhello"


class Socket(asyncio.Transport):
    """A transport that records the calls of its methods."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.reading = True
        self.open = True

    def write(self, data: Any) -> None:
        self.sent += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return not self.open

    def close(self) -> None:
        self.open = False

    abort = close


class PooledConnection:
    """A connection on such a socket, from a pool."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.connection = Connection(asyncio.get_running_loop())
        self.connection.connection_made(self.socket)
        self.connection.lend(self.put)
        self.pooled = False

    def put(self, connection: Connection) -> None:
        assert connection is self.connection
        assert connection.ready()
        self.pooled = True

    @property
    def state(self) -> str:
        """`pooled`, `closed`, or empty while it is in use."""
        if self.pooled:
            return "pooled"
        return "" if self.socket.open and self.connection.transport is not None else "closed"


class Call:
    """An exchange in progress; `body` reads to the end of the response."""

    def __init__(self, method: bytes = b"POST", pooled: PooledConnection | None = None) -> None:
        self.pooled = pooled or PooledConnection()
        self.connection = self.pooled.connection
        self.exchange = Exchange(self.connection)
        self.task = asyncio.create_task(self.exchange.run(method + b" / HTTP/1.1\r\n\r\n", b""))

    def reading(self) -> bool:
        """Whether the socket is being read."""
        return self.pooled.socket.reading

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        response = await self.task
        body = b"".join([data async for data in self.exchange])
        await response.body.aclose()
        return response.status, response.texts(), body


async def answer(*pieces: bytes, method: bytes = b"POST", end: bool = False) -> tuple[Call, Any]:
    """The response for these reads, or the error."""
    call = Call(method)
    await asyncio.sleep(0)
    for piece in pieces:
        if call.pooled.socket.open:
            call.connection.data_received(piece)
    if end:
        call.connection.connection_lost(None)
    try:
        return call, await call.answer()
    except httpx.TransportError as error:
        call.exchange.close()
        return call, error


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted({place % len(data) for place in at}), len(data)]
    return [data[a:b] for a, b in pairwise(places) if a < b]


@pytest.mark.parametrize(
    ("data", "end", "state"), [(LENGTH, False, "pooled"), (CHUNKED, False, "pooled"), (TO_THE_END, True, "closed")]
)
@given(at=st.lists(st.integers(0, 200), max_size=8))
def test_any_split_gives_the_same_answer(data: bytes, end: bool, state: str, at: list[int]) -> None:
    call, (status, headers, body) = asyncio.run(answer(*cut(data, at), end=end))
    assert (status, headers["x-a"], body) == (200, "1", b"hello")
    assert "x-trailer" not in headers
    assert call.pooled.state == state


@given(
    st.lists(st.tuples(st.sampled_from([LENGTH, CHUNKED]), st.lists(st.integers(0, 200), max_size=4)), max_size=5)
)
def test_one_connection_serves_one_call_after_another(answers: list[tuple[bytes, list[int]]]) -> None:
    """All are parsed by the same parser, whatever their framing."""

    async def run() -> None:
        pooled = PooledConnection()
        for data, at in answers:
            call = Call(pooled=pooled)
            await asyncio.sleep(0)
            for piece in cut(data, at):
                call.connection.data_received(piece)
            status, headers, body = await call.answer()
            assert (status, headers["x-a"], body) == (200, "1", b"hello")
            assert pooled.socket.open
            assert pooled.connection.ready()

    asyncio.run(run())


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_end_the_call(garbage: bytes, at: list[int]) -> None:
    """Any bytes end the call with a response or an httpx error, and the connection is pooled or closed."""
    call, _ = asyncio.run(answer(*cut(b"HTTP/1.1 2" + garbage, at), end=True))
    assert call.pooled.state in ("pooled", "closed")
    assert call.connection._listener is None


async def test_interim_responses_are_skipped() -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\nx-b: 1\r\n\r\n"
    call, (status, headers, body) = await answer(hints + LENGTH)
    assert (status, body, call.pooled.state) == (200, b"hello", "pooled")
    assert "x-b" not in headers


async def test_another_protocol_is_refused() -> None:
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"
    call, error = await answer(upgrade)
    assert isinstance(error, httpx.RemoteProtocolError)
    assert call.pooled.state == "closed"


async def test_the_answer_to_head_has_no_body() -> None:
    call, (status, headers, body) = await answer(LENGTH.removesuffix(b"hello"), method=b"HEAD")
    assert (status, headers["content-length"], body) == (200, "5", b"")
    assert call.pooled.state == "closed"


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\n\r\n", b"?", LENGTH])
async def test_surplus_bytes(more: bytes) -> None:
    """The response is valid; the connection serves no other call, which would get the surplus bytes."""
    call, (_, _, body) = await answer(LENGTH + more)
    assert (body, call.pooled.state) == (b"hello", "closed")


@pytest.mark.parametrize(
    "piece",
    [b"1\r\na\r\n2;" + b"x=y;" * 4000, b"0" * 16_000, b"1\r\na\r\n0\r\nx: " + b"a" * 16_000],
    ids=["extensions of a chunk", "digits of a chunk's size", "one trailer"],
)
async def test_framing_without_end(piece: bytes) -> None:
    """What brings no part of the body has the limit of headers, wherever it stands."""
    more = piece[-16_000:]
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    call, error = await answer(head, piece, *[more] * (MAX_HEADER_BYTES // len(more) + 2))
    assert isinstance(error, httpx.RemoteProtocolError)
    assert "too large" in str(error)
    assert call.pooled.state == "closed"


async def test_framing_in_reads_of_its_own() -> None:
    """A long stream may come in thousands of reads that bring the size of a chunk and nothing more."""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    count = MAX_HEADER_BYTES // 3 + 1
    _, found = await answer(head, *[b"1\r\n", b"a\r\n"] * count, b"0\r\n\r\n")
    assert found[2] == b"a" * count


@pytest.mark.parametrize("where", ["headers", "interim", "trailers"])
async def test_headers_have_a_number(where: str) -> None:
    for count, fails in ((MAX_HEADERS - 3, False), (MAX_HEADERS + 1, True)):
        many = b"a: b\r\n" * count
        interim = b"HTTP/1.1 103 Early Hints\r\n" + many + b"\r\n" if where == "interim" else b""
        data = CHUNKED.replace(b"x-a: 1\r\n", many) if where == "headers" else CHUNKED
        data = data.replace(b"x-trailer: 1\r\n", many) if where == "trailers" else data
        call, found = await answer(interim + data)
        assert isinstance(found, httpx.RemoteProtocolError) is fails
        assert fails is ("too large" in str(found))
        assert call.pooled.state == ("closed" if fails else "pooled")


async def test_surplus_bytes_later() -> None:
    call, _ = await answer(LENGTH)
    assert call.pooled.state == "pooled"
    call.connection.data_received(LENGTH)
    assert not call.connection.ready()


async def test_a_server_that_will_close() -> None:
    call, _ = await answer(LENGTH.replace(b"x-a: 1", b"connection: close"))
    assert call.pooled.state == "closed"


@pytest.mark.parametrize("piece", [b"x-name: value\r\n", b"x"])
async def test_headers_without_end(piece: bytes) -> None:
    size = 2**14 // len(piece)
    call, error = await answer(b"HTTP/1.1 200 OK\r\n", *[piece * size] * (MAX_HEADER_BYTES // 2**14 + 2))
    assert isinstance(error, httpx.RemoteProtocolError)
    assert "too large" in str(error)
    assert call.pooled.state == "closed"


async def test_trailers_without_end() -> None:
    trailer = b"x-name: value\r\n" * 1000
    head = CHUNKED.removesuffix(b"x-trailer: 1\r\n\r\n")
    call, error = await answer(head, *[trailer] * (2 * MAX_HEADER_BYTES // len(trailer)))
    assert isinstance(error, httpx.RemoteProtocolError)
    assert call.pooled.state == "closed"


async def test_a_slow_reader_pauses_the_socket() -> None:
    call = Call()
    await asyncio.sleep(0)
    size = 3 * MAX_UNREAD_BYTES
    call.connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
    await call.task
    call.connection.data_received(bytes(MAX_UNREAD_BYTES + 1))
    assert not call.reading()
    reads = aiter(call.exchange)
    assert len(await anext(reads)) == MAX_UNREAD_BYTES + 1
    assert call.reading()
    call.connection.data_received(bytes(size - MAX_UNREAD_BYTES - 1))
    assert call.pooled.state == "pooled"
    assert call.reading()


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


TEXT = b"All of it. " * 1000


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        pytest.param(b"gzip", gzip.compress(TEXT), id="gzip"),
        pytest.param(b"GZIP", gzip.compress(TEXT), id="in capitals"),
        pytest.param(b"gzip", gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:]), id="in two members"),
        pytest.param(b"deflate", zlib.compress(TEXT), id="deflate"),
        pytest.param(b"deflate", raw_deflate(TEXT), id="deflate without its header"),
        pytest.param(b"identity", TEXT, id="none"),
    ],
)
@given(at=st.lists(st.integers(0, 200), max_size=4))
def test_decompression(encoding: bytes, data: bytes, at: list[int]) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n" % (encoding, len(data))
    _, (_, _, body) = asyncio.run(answer(*cut(head + data, at)))
    assert body == TEXT


@pytest.mark.parametrize("data", [b"", gzip.compress(TEXT)[:-9], b"no gzip"])
async def test_truncated_compression(data: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
    _, out = await answer(head + data)
    assert out[2] == b"" if not data else isinstance(out, httpx.ReadError)


async def test_decompressed_data_comes_in_pieces() -> None:
    data = gzip.compress(bytes(2**26))
    call = Call()
    await asyncio.sleep(0)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
    call.connection.data_received(head + data)
    sizes = [len(piece) async for piece in call.exchange]
    assert sum(sizes) == 2**26
    assert max(sizes) <= 2**18
    await call.task


async def test_decompression_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.wire.decompress.MAX_DECOMPRESSED_BYTES", 2**20)
    data = gzip.compress(bytes(2**20 + 1))
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
    _, error = await answer(head + data)
    assert isinstance(error, httpx.ReadError)
    assert "larger than 1048576 bytes" in str(error)


async def test_a_truncated_body() -> None:
    call, error = await answer(LENGTH[:-1], end=True)
    assert isinstance(error, httpx.ReadError)
    assert call.pooled.state == "closed"


async def test_closing_before_the_end() -> None:
    call = Call()
    await asyncio.sleep(0)
    call.connection.data_received(LENGTH[:-1])
    await call.task
    await call.exchange.aclose()
    assert call.pooled.state == "closed"
    assert not call.pooled.socket.open


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([LENGTH], b"hello"),
        ([CHUNKED], b"hello"),
        ([LENGTH[:-2], LENGTH[-2:]], b"hello"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
        ([LENGTH[:-2]], None),
        ([TO_THE_END], None),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-encoding: gzip\r\n\r\nx"], None),
    ],
)
async def test_a_received_answer_is_available_at_once(pieces: list[bytes], whole: bytes | None) -> None:
    call = Call()
    await asyncio.sleep(0)
    for piece in pieces:
        call.connection.data_received(piece)
    response = await call.task
    assert response.body.whole() == whole
    if whole is not None:
        assert [data async for data in response.body] == []
        assert call.pooled.state == "pooled"
    await response.body.aclose()


async def test_a_dropped_exchange_is_freed_without_garbage_collection() -> None:
    """Thousands of abandoned streams may be dropped before the next garbage collection."""
    call = Call()
    await asyncio.sleep(0)
    call.connection.data_received(LENGTH[:-1])
    await call.task
    kept = weakref.ref(call.connection)
    gc.disable()
    try:
        call.exchange.close()
        call.connection.connection_lost(None)
        del call
        assert kept() is None
    finally:
        gc.enable()


async def test_other_calls_have_a_turn_while_a_body_inflates() -> None:
    """A read of 64 KB may expand to 64 MB, in pieces of 256 KB."""
    data = gzip.compress(bytes(16 * PIECE_SIZE))
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
    call = Call()
    await asyncio.sleep(0)
    call.connection.data_received(head + data)
    await call.task
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    pieces = [(turns, len(piece)) async for piece in call.exchange]
    task.cancel()
    assert sum(length for _, length in pieces) == 16 * PIECE_SIZE
    assert len({turn for turn, _ in pieces}) >= 16


async def test_empty_parts_of_a_compressed_body_have_a_limit() -> None:
    for count, fails in ((MAX_MEMBERS, False), (MAX_MEMBERS + 1, True)):
        data = gzip.compress(b"") * (count - 1) + gzip.compress(b"hello")
        head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
        _, found = await answer(head + data)
        if fails:
            assert isinstance(found, httpx.ReadError)
            assert f"more than {MAX_MEMBERS} parts" in str(found)
        else:
            assert found[2] == b"hello"
