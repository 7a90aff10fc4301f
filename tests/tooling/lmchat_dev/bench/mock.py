"""The provider of the benchmark: an HTTP/1.1 server of the OpenAI dialect that uses little CPU.

It runs as a process and prints its port. The model's name selects the behaviour:

    unary          answer at once; streamed, with 20 tokens
    fast-N         stream N tokens as fast as the socket takes them, several events per write
    paced-R        stream R tokens a second, `max_tokens` of them (10,000 by default)
    burst-R        the same in R writes a second of several events each, as many tokens
    held           stream one token, and nothing more until the caller leaves
    slow-MS        answer after MS milliseconds
    status-CODE    fail with this HTTP status
    cut-N          stream N tokens, then close the socket
    broken-N       stream N tokens, then an error as an event

`GET /stats` returns `Stats`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from lmchat_dev.bench import dialect

EVENTS_PER_WRITE = 8
"""Events per write of a fast stream, as many as one read from a busy provider brings."""

BUFFER = 16 * 1024
"""Bytes that wait for a slow reader before the mock stops writing."""

_END = b"0\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: mock\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Stats(msgspec.Struct):
    """Counters of the mock.

    `connections` are open, without that of the request for them; `running` are calls in progress,
    `abandoned` those whose caller disconnected before the end.
    """

    connections: int = 0
    running: int = 0
    requests: int = 0
    abandoned: int = 0


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class RequestFields(msgspec.Struct):
    """The fields of a request that the mock reads."""

    model: str = ""
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream_options: _StreamOptions | None = None

    @property
    def with_usage(self) -> bool:
        """Whether the stream is to end with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


_decode = msgspec.json.Decoder(RequestFields).decode


class Connection(asyncio.Protocol):
    """One caller's connection; one call at a time."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._running = False
        self._paused = False
        self._timer: asyncio.Handle | None = None
        self._pieces: Sequence[bytes] = ()
        self._at = 0
        self._interval = 0.0
        self._due = 0.0
        self._finish: Callable[[], None] = self.ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        transport.set_write_buffer_limits(BUFFER)
        self._stats.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._stats.connections -= 1
        if self._running:
            self._stats.running -= 1
            self._stats.abandoned += 1
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._running and self._timer is None:
            self._step()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._running:
            self._next()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Run `call` after `seconds`, unless the caller disconnects."""
        self._timer = self._loop.call_later(seconds, call)

    def reply(self, body: bytes, status: int = 200) -> None:
        """A whole answer."""
        self.transport.write(
            b"HTTP/1.1 %d X\r\nserver: mock\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )
        self.ended()

    def play(self, pieces: Sequence[bytes], interval: float, finish: Callable[[], None]) -> None:
        """Write `pieces`, each `interval` seconds after the one before (0: as fast as they are taken)."""
        self._pieces, self._at, self._interval, self._finish = pieces, 0, interval, finish
        self._due = self._loop.time()
        self.transport.write(_STREAM_HEAD)
        self._step()

    def ended(self) -> None:
        """The call is over; the next one, if it came already, begins."""
        self._running = False
        self._stats.running -= 1
        self._timer = None
        if self._buffer:
            self._loop.call_soon(self._next)

    def _step(self) -> None:
        """Write one piece, and schedule the next, so that streams are served in turn."""
        self._timer = None
        if self._paused:
            return
        if self._at < len(self._pieces):
            self.transport.write(self._pieces[self._at])
            self._at += 1
        if self._at == len(self._pieces):
            self._finish()
        elif self._interval:
            self._due += self._interval
            self._timer = self._loop.call_at(self._due, self._step)
        else:
            self._timer = self._loop.call_soon(self._step)

    def _next(self) -> None:
        """Begin the next call, if all of it is there."""
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if self._running or not found:
            return
        length = _content_length(head)
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._running = True
        self._stats.running += 1
        if head.startswith(b"GET "):
            now = msgspec.structs.replace(
                self._stats, connections=self._stats.connections - 1, running=self._stats.running - 1
            )
            self.reply(msgspec.json.encode(now))
            return
        self._stats.requests += 1
        request = _decode(rest[:length])
        name, _, number = request.model.partition("-")
        behaviour = BEHAVIOURS.get(name)
        if behaviour is None:
            self.reply(dialect.error(404), 404)
        else:
            behaviour(self, request, int(number or 0))


Behaviour = Callable[[Connection, RequestFields, int], None]


def _whole(connection: Connection, request: RequestFields, tokens: int) -> None:
    tokens = tokens or 20
    if request.stream:
        connection.play(_fast(tokens, request.with_usage), 0.0, connection.ended)
    else:
        connection.reply(dialect.completion(tokens))


def _paced(connection: Connection, request: RequestFields, rate: int) -> None:
    tokens = request.max_completion_tokens or request.max_tokens or 10_000
    connection.play(_single(tokens, request.with_usage), 1 / rate, connection.ended)


def _burst(connection: Connection, request: RequestFields, rate: int) -> None:
    tokens = request.max_completion_tokens or request.max_tokens or 10_000
    connection.play(_fast(tokens, request.with_usage), 1 / rate, connection.ended)


def _held(connection: Connection, request: RequestFields, _: int) -> None:
    connection.play(_single(1, request.with_usage)[:1], 0.0, lambda: None)


def _slow(connection: Connection, request: RequestFields, milliseconds: int) -> None:
    connection.later(milliseconds / 1000, lambda: _whole(connection, request, 20))


def _status(connection: Connection, request: RequestFields, status: int) -> None:
    connection.reply(dialect.error(status), status)


def _cut(connection: Connection, request: RequestFields, tokens: int) -> None:
    def hang_up() -> None:
        connection.ended()  # so that it does not count as abandoned by its caller
        connection.transport.close()

    connection.play(_single(tokens, request.with_usage)[:tokens], 0.0, hang_up)


def _broken(connection: Connection, request: RequestFields, tokens: int) -> None:
    event = b"data: %b\n\n" % dialect.error(500)
    # With an interval, so that the error is seldom read together with all events before it.
    connection.play(
        [*_single(tokens, request.with_usage)[:tokens], _framed(event) + _END], 0.002, connection.ended
    )


BEHAVIOURS: dict[str, Behaviour] = {
    "unary": _whole,
    "fast": _whole,
    "paced": _paced,
    "burst": _burst,
    "held": _held,
    "slow": _slow,
    "status": _status,
    "cut": _cut,
    "broken": _broken,
}


def _framed(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@lru_cache(64)
def _fast(tokens: int, with_usage: bool) -> list[bytes]:
    pieces = [
        _framed(piece)
        for piece in dialect.grouped(dialect.events(tokens, with_usage=with_usage), EVENTS_PER_WRITE)
    ]
    return [*pieces[:-1], pieces[-1] + _END]


@lru_cache(64)
def _single(tokens: int, with_usage: bool) -> list[bytes]:
    """Role and first token together, then an event each; finish, usage and [DONE] together again."""
    first, second, *others = dialect.events(tokens, with_usage=with_usage)
    body = [first + second, *others[: tokens - 1], b"".join(others[tokens - 1 :])]
    pieces = [_framed(piece) for piece in body]
    return [*pieces[:-1], pieces[-1] + _END]


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def serve() -> None:
    """Listen on a free port of 127.0.0.1, print it, and serve until killed."""
    stats = Stats()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(stats), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
