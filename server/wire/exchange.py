"""One HTTP/1.1 request and its response on a connection. Raises httpx's errors.

The state says how far the response has come:

    State             meaning                                           next state, and what leads to it
    WAITING           the response's headers are awaited                BODY or BODY_UNTIL_CLOSE: begin(); FAILED
    BODY              a body with a length or chunks is being received  COMPLETE: end(); FAILED: fail(), lost()
    BODY_UNTIL_CLOSE  the same, ended by the end of the connection      COMPLETE: end(), lost() in order; FAILED
    COMPLETE          the whole response was received; parts of it      none
                      may still have to be read
    FAILED            the rest of the response is lost                  none
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum, auto
from typing import Protocol, Self

import httpx
import msgspec

from server.wire.connection import Connection, Headers
from server.wire.decompress import PIECE_SIZE, Decompressor

#: Bytes of a response body that is read as a whole; Envoy's limit for a response to a caller is the same.
MAX_BODY_BYTES = 64 * 1024 * 1024
#: Bytes written to a socket at once; a larger request body is sent as fast as the provider takes it.
_WRITE_SIZE = 256 * 1024
#: With more unread bytes of a response than this, reading from the socket pauses.
MAX_UNREAD_BYTES = 256 * 1024


class Body(Protocol):
    """A body's bytes as they come, without waiting to fill a buffer. Its user closes it, read or not."""

    def __aiter__(self) -> Self:
        """Itself: it is read once."""
        ...

    async def __anext__(self) -> bytes:
        """The next bytes, at least one. Raises httpx.TransportError."""
        ...

    def whole(self) -> bytes | None:
        """The whole body where it has been received already; None where it has to be iterated."""
        ...

    async def aclose(self) -> None:
        """Give up the connection: closes the socket unless the whole response has been received."""
        ...


class Response(msgspec.Struct, frozen=True):
    """A response's status, its headers as the server sent them, and its body."""

    status: int
    headers: Headers
    body: Body

    def header(self, name: bytes) -> str:
        """The value of a header, by its name in lower case; empty where there is none."""
        return next((_text(value) for key, value in self.headers if key.lower() == name), "")

    def texts(self) -> dict[str, str]:
        """All headers, their names in lower case; the first of those that come twice."""
        return {_text(name).lower(): _text(value) for name, value in reversed(self.headers)}


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


class State(Enum):
    """See the table at the head of the module."""

    WAITING = auto()
    BODY = auto()
    BODY_UNTIL_CLOSE = auto()
    COMPLETE = auto()
    FAILED = auto()


class Exchange:
    """`run` it once and close it in any case; it is the body of the response that `run` returns.

    As soon as the whole response has been received, read or not, the connection is released, if it is reusable.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._loop = connection.loop
        self._state = State.WAITING
        self._sending: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: httpx.TransportError = httpx.ReadError("The server closed the connection.")
        self._status = 0
        self._headers: Headers = []
        self._decompressor: Decompressor | None = None
        self._decompressed: Iterator[bytes] = iter(())
        self._pieces: list[bytes] = []
        self._unread = 0
        self._paused = False

    async def run(self, head: bytes, body: bytes) -> Response:
        """Send a request, and return when the response's headers are there. Raises httpx.TransportError.

        The request is not kept, since a stream may last for minutes.
        """
        connection = self._connection
        if connection is None or connection.transport is None:
            raise self._error
        connection.listen(self, bodiless=head.startswith(b"HEAD "))
        if len(body) <= _WRITE_SIZE:
            connection.transport.write(head + body)
        else:
            connection.transport.write(head)
            self._sending = asyncio.create_task(_send(connection, body))
        while self._state is State.WAITING:
            await self._change()
        if self._state is State.FAILED:
            raise self._error
        headers, self._headers = self._headers, []
        return Response(self._status, headers, self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            if self._decompressor is not None:
                piece = next(self._decompressed, None)
                if piece is not None:
                    if len(piece) == PIECE_SIZE:  # others may follow at once; between them other calls have a turn
                        await asyncio.sleep(0)
                    return piece
            while not self._pieces:
                if self._state is State.COMPLETE:
                    if self._decompressor is not None and not self._decompressor.complete:
                        raise httpx.ReadError("The compressed response is not complete.")
                    raise StopAsyncIteration
                if self._state is State.FAILED:
                    raise self._error
                await self._change()
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._unread = 0
            if self._paused:
                self._pause(False)
            if self._decompressor is None:
                return data
            self._decompressed = self._decompressor.feed(data)

    def whole(self) -> bytes | None:
        """See `Body`. Small responses mostly come in one read."""
        if self._state is not State.COMPLETE or self._decompressor is not None:
            return None
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    async def aclose(self) -> None:
        """The same as `close`."""
        self.close()

    def close(self) -> None:
        """Close the connection unless it was released: what the provider still sends is not received."""
        connection, self._connection = self._connection, None
        if self._sending is not None:
            self._sending.cancel()
        if connection is not None:
            connection.drop()

    # Listener

    def begin(self, status: int, headers: Headers) -> None:
        """See `Listener`, as for the methods below."""
        self._status = status
        self._headers = headers
        self._state = State.BODY_UNTIL_CLOSE
        for name, value in headers:
            name = name.lower()
            if name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower()):
                self._state = State.BODY
            elif name == b"content-encoding":
                self._decompressor = Decompressor.of(value)

    def add(self, data: bytes) -> None:
        """A part of the body."""
        self._pieces.append(data)
        self._unread += len(data)

    def more(self) -> None:
        """There may be something to read; with too much of it, reading from the socket pauses."""
        if self._unread > MAX_UNREAD_BYTES and not self._paused:
            self._pause(True)
        self._wake()

    def end(self) -> None:
        """The whole response is here. A connection is reusable if the whole request was sent as well."""
        self._state = State.COMPLETE
        connection = self._connection
        sent = self._sending is None or self._sending.done()
        if connection is None or not connection.ready() or not sent:
            self.close()
        else:
            if self._paused:
                self._pause(False)
            self._connection = None
            connection.release()
        self._wake()

    def fail(self, error: httpx.TransportError) -> None:
        """The rest of the response is lost."""
        self._state, self._error = State.FAILED, error
        self.close()
        self._wake()

    def lost(self, error: BaseException | None) -> None:
        """The connection is closed, in order or by `error`."""
        if self._state is State.BODY_UNTIL_CLOSE and error is None:
            self._state = State.COMPLETE
        else:
            self._state = State.FAILED
            if error is not None and str(error):
                self._error = httpx.ReadError(str(error))
        self.close()
        self._wake()

    def _pause(self, paused: bool) -> None:
        """Stop or resume reading from the socket."""
        transport = self._connection.transport if self._connection is not None else None
        if transport is not None:
            self._paused = paused
            (transport.pause_reading if paused else transport.resume_reading)()

    def _change(self) -> asyncio.Future[None]:
        """Awaits the next call of the listener."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


async def _send(connection: Connection, body: bytes) -> None:
    """Send a large body as fast as the provider takes it. A lost socket is reported by the response."""
    view = memoryview(body)
    with suppress(ConnectionError):
        for start in range(0, len(body), _WRITE_SIZE):
            await connection.drain()
            if connection.transport is not None:
                connection.transport.write(view[start : start + _WRITE_SIZE])
