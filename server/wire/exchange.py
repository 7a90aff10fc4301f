"""One HTTP/1.1 request and its answer, on a connection that aiohttp made. Failures are httpx's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol, Self

import httpx
import msgspec

from server.wire.connection import Headers, Receiver
from server.wire.decompress import Inflater

#: Bytes handed to a connection at once; larger bodies go as fast as the provider takes them.
_PIECE = 2**18
#: With so many unread bytes of an answer, no more are taken from the socket.
_MOST_UNREAD = 2**18


class Body(Protocol):
    """A body's bytes as they come, never waiting to fill a buffer. Whoever has it closes it, read or not."""

    def __aiter__(self) -> Self:
        """Itself: it is read once."""
        ...

    async def __anext__(self) -> bytes:
        """The next bytes, at least one. Raises httpx.TransportError."""
        ...

    def whole(self) -> bytes | None:
        """All of it, where it has come already; else it is to be iterated."""
        ...

    async def aclose(self) -> None:
        """Let go of the connection, which is closed unless the whole answer has come."""
        ...


class Response(msgspec.Struct, frozen=True):
    """An answer's status, its headers as they were sent, and its body."""

    status: int
    headers: Headers
    body: Body

    def header(self, name: bytes) -> str:
        """The value of a header, by its name in lower case; empty where there is none."""
        return next((_text(value) for key, value in self.headers if key.lower() == name), "")

    def texts(self) -> dict[str, str]:
        """All headers, their names in lower case. Of those that come twice, the first."""
        return {_text(name).lower(): _text(value) for name, value in reversed(self.headers)}


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


class Exchange:
    """`run` it once, and close it in any case; it is the body of the response that comes of it.

    As soon as the whole answer has come, read or not, the connection is left to other calls, if it can serve them.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver: Receiver | None = receiver
        self._loop = receiver.loop
        self._sending: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: httpx.TransportError | None = None
        self._status = 0  # until all headers are there
        self._headers: Headers = []
        self._to_end = False  # the body ends with the connection
        self._inflater: Inflater | None = None
        self._inflated: Iterator[bytes] = iter(())
        self._pieces: list[bytes] = []
        self._unread = 0
        self._paused = False
        self._complete = False

    async def run(self, head: bytes, body: bytes) -> Response:
        """Send, and return when the response's headers are there. The request is not kept: streams are long."""
        receiver = self._receiver
        if receiver is None or receiver.transport is None:
            raise httpx.ReadError("The server closed the connection.")
        receiver.listen(self, bodiless=head.startswith(b"HEAD "))
        if len(body) <= _PIECE:
            receiver.transport.write(head + body)
        else:
            receiver.transport.write(head)
            self._sending = asyncio.create_task(_send(receiver, body))
        while self._error is None and not self._status:
            await self._change()
        if self._error is not None:
            raise self._error
        headers, self._headers = self._headers, []
        return Response(self._status, headers, self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            if self._inflater is not None:
                piece = next(self._inflated, None)
                if piece is not None:
                    return piece
            while not self._pieces:
                if self._complete:
                    if self._inflater is not None and not self._inflater.done:
                        raise httpx.ReadError("The compressed answer is not complete.")
                    raise StopAsyncIteration
                if self._error is not None:
                    raise self._error
                await self._change()
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._unread = 0
            if self._paused:
                self._read_on(True)
            if self._inflater is None:
                return data
            self._inflated = self._inflater.feed(data)

    def whole(self) -> bytes | None:
        """See `Body`. Small answers mostly come in one piece."""
        if not self._complete or self._inflater is not None:
            return None
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    async def aclose(self) -> None:
        """The same as `close`."""
        self.close()

    def close(self) -> None:
        """Close the connection, if it is not done with: what the provider still has to send goes nowhere."""
        receiver, self._receiver = self._receiver, None
        if self._sending is not None:
            self._sending.cancel()
        if receiver is not None:
            receiver.drop()

    # What the receiver says

    def begin(self, status: int, headers: Headers) -> None:
        """See `Listener`; so for the others."""
        self._status = status
        self._headers = headers
        self._to_end = True
        for name, value in headers:
            name = name.lower()
            if name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower()):
                self._to_end = False
            elif name == b"content-encoding":
                self._inflater = Inflater.of(value)

    def add(self, data: bytes) -> None:
        """Some of the body."""
        self._pieces.append(data)
        self._unread += len(data)

    def more(self) -> None:
        """There may be something to read; with too much of it, no more is taken from the socket."""
        if self._unread > _MOST_UNREAD and not self._paused:
            self._read_on(False)
        self._wake()

    def end(self) -> None:
        """The whole answer is here; the connection can serve another call if the whole request is there."""
        self._complete = True
        receiver = self._receiver
        if receiver is None or not receiver.ready() or (self._sending is not None and not self._sending.done()):
            self.close()
        else:
            if self._paused:
                self._read_on(True)
            self._receiver = None
            receiver.release()
        self._wake()

    def fail(self, error: httpx.TransportError) -> None:
        """The rest of the answer is lost."""
        self._error = error
        self.close()
        self._wake()

    def lost(self, error: BaseException | None) -> None:
        """The connection is closed, in order or by `error`."""
        if self._to_end and error is None:
            self._complete = True
        elif self._error is None:
            self._error = httpx.ReadError(str(error or "") or "The server closed the connection.")
        self.close()
        self._wake()

    # What comes of it

    def _read_on(self, on: bool) -> None:
        """Take more from the socket, or no more for now."""
        transport = self._receiver.transport if self._receiver is not None else None
        if transport is not None:
            self._paused = not on
            (transport.resume_reading if on else transport.pause_reading)()

    def _change(self) -> asyncio.Future[None]:
        """To be awaited: something has changed."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


async def _send(receiver: Receiver, body: bytes) -> None:
    """Hand a large body over as fast as the provider takes it. A break is for who reads the answer to notice."""
    view = memoryview(body)
    with suppress(ConnectionError):
        for start in range(0, len(body), _PIECE):
            await receiver._drain_helper()
            if receiver.transport is None:
                return
            receiver.transport.write(view[start : start + _PIECE])
