"""An HTTP/1.1 client: one kept-alive connection, and the time of each read of a response.

No client library is used: its cost would count as latency of the gateway.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping

CONTENT = re.compile(rb'"content":\s*"[^"]')
"""Content that is not empty, of a delta or of a message."""

_TAIL = 1024
"""Bytes of a stream's end that are kept, to see how it ended."""

now = time.monotonic


class Exchange:
    """One call and its response."""

    __slots__ = ("arrivals", "body", "content", "ended", "events", "first", "problem", "sent", "status")

    def __init__(self) -> None:
        self.sent = now()
        self.status = 0
        self.body = b""
        """All of a whole answer, the last bytes of a stream."""
        self.arrivals: list[tuple[float, int]] = []
        """When reads came that brought events, and how many each brought."""
        self.events = 0
        self.content = False
        self.first = 0.0
        """When the first content came; 0 until then."""
        self.ended = 0.0
        """When the answer was whole; 0 until then."""
        self.problem = ""
        """What is wrong with the response, in one line; empty where nothing is."""

    def check(self, *, stream: bool, min_events: int = 0) -> None:
        """Set `problem`. A stream must have had `min_events` events."""
        if self.status != 200:
            self.problem = f"status {self.status}: {self.body[-300:].decode(errors='replace')}"
        elif not self.content:
            self.problem = f"no content: {self.body[-300:].decode(errors='replace')}"
        elif stream and not self.body.endswith(b"data: [DONE]\n\n"):
            self.problem = f"the stream did not end in [DONE]: {self.body[-200:].decode(errors='replace')}"
        elif stream and self.events < min_events:
            self.problem = f"{self.events} events instead of {min_events}"


class Chunked:
    """Decodes a chunked body, however its bytes are split."""

    __slots__ = ("_last", "_line", "_remaining", "done")

    def __init__(self) -> None:
        self._line = b""
        self._remaining = 0  # of the chunk, and the line break after it
        self._last = False
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """The payload that `data` completes."""
        if self._line:
            data, self._line = self._line + data, b""
        found = []
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._remaining:
                count = min(self._remaining, size - at)
                if self._remaining > 2:
                    found.append(data[at : at + min(count, self._remaining - 2)])
                self._remaining -= count
                at += count
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._line = data[at:]
                break
            self._begin(data[at:end])
            at = end + 2
        return found[0] if len(found) == 1 else b"".join(found)

    def _begin(self, line: bytes) -> None:
        if self._last:  # trailers, and the empty line after them
            self.done = not line
            return
        length = int(line.partition(b";")[0], 16)
        self._last = not length
        self._remaining = length + 2 if length else 0


class Connection(asyncio.Protocol):
    """One connection; one exchange at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.closed = False
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._done: asyncio.Future[None] | None = None
        self._stream = False
        self._in_head = True
        self._chunked: Chunked | None = None
        self._length: int | None = None  # bytes of the body to come; None: until the connection ends
        self._carry = b""  # a line break that may be half of an event's end

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to 127.0.0.1. Raises OSError."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    async def call(self, request: bytes, exchange: Exchange, *, stream: bool) -> None:
        """Send `request`; returns when the answer is whole. Raises ConnectionError. Cancelling hangs up."""
        self._exchange, self._stream = exchange, stream
        self._in_head, self._chunked, self._length = True, None, None
        self._buffer = self._carry = b""
        self._done = self._loop.create_future()
        exchange.sent = now()
        self.transport.write(request)
        try:
            await self._done
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self.closed = True
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._exchange is None or self._done is None or self._done.done():
            return
        if not self._in_head and self._chunked is None and self._length is None:
            self._end(now())
        else:
            self._done.set_exception(ConnectionResetError(f"connection lost: {exc or 'closed by the server'}"))

    def data_received(self, data: bytes) -> None:
        received_at = now()
        exchange = self._exchange
        if exchange is None:  # after an answer's end
            self.close()
            return
        if self._in_head:
            self._buffer += data
            head, found, data = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._buffer = b""
            self._read_head(head, exchange)
        if self._chunked is not None:
            self._take(self._chunked.feed(data), received_at, exchange)
            if self._chunked.done:
                self._end(received_at)
        else:
            self._take(data, received_at, exchange)
            if self._length is not None:
                self._length -= len(data)
                if self._length <= 0:
                    self._end(received_at)

    def _read_head(self, head: bytes, exchange: Exchange) -> None:
        self._in_head = False
        exchange.status = int(head[9:12])
        lower = head.lower()
        if b"\r\ntransfer-encoding: chunked" in lower:
            self._chunked = Chunked()
            return
        _, found, rest = lower.partition(b"\r\ncontent-length:")
        self._length = int(rest.partition(b"\r\n")[0]) if found else None

    def _take(self, data: bytes, received_at: float, exchange: Exchange) -> None:
        if not data:
            return
        if not self._stream:
            exchange.body += data
            return
        joined = self._carry + data
        events = joined.count(b"\n\n")
        self._carry = b"\n" if joined.endswith(b"\n") and not joined.endswith(b"\n\n") else b""
        if events:
            exchange.events += events
            exchange.arrivals.append((received_at, events))
        if not exchange.content:
            exchange.body += data
            if CONTENT.search(exchange.body):
                exchange.content = True
                exchange.first = received_at
        else:
            exchange.body = data if len(data) >= _TAIL else (exchange.body + data)[-_TAIL:]

    def _end(self, received_at: float) -> None:
        exchange, done = self._exchange, self._done
        if exchange is None or done is None or done.done():
            return
        self._exchange = None
        exchange.ended = received_at
        if not self._stream:
            exchange.content = CONTENT.search(exchange.body) is not None
            exchange.first = received_at
        done.set_result(None)


def request(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes of a POST with a JSON body."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body
