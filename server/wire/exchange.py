"""One HTTP/1.1 request and its answer, on a connection that aiohttp made.

The answer is parsed by llhttp, by way of httptools: aiohttp's own reader (a
queue of messages, a multidict, a stream with timers) costs more than the rest
of a small call. Failures are httpx's.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol, Self

import httptools
import httpx
import msgspec
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

#: Bytes handed to a connection at once; larger bodies go as fast as the provider takes them.
_PIECE = 2**18
#: With so many unread bytes of an answer, no more are taken from the socket.
_MOST_UNREAD = 2**18
#: Bytes of headers, and of trailers. Providers send some 2,000.
_MOST_HEADERS = 2**17


class Receiver(ResponseHandler):
    """aiohttp's end of a connection. What it receives during an exchange goes there, past aiohttp's reader."""

    exchange: Exchange | None = None

    @property
    def should_close(self) -> bool:
        """Whether the connection is of no more use."""
        return self.exchange is not None or super().should_close

    def data_received(self, data: bytes) -> None:
        """Without an exchange it is a proxy that answers, or a server that speaks unasked."""
        if self.exchange is None:
            super().data_received(data)
        else:
            self.exchange.feed(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket is closed."""
        if self.exchange is not None:
            self.exchange.lost(exc)
        super().connection_lost(exc)


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
    headers: list[tuple[bytes, bytes]]
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

    As soon as the whole answer has come, read or not, the connection is done with: if it can serve another
    call, `done` gets it.
    """

    def __init__(self, connection: Connection, done: Callable[[Connection], None]) -> None:
        self._connection: Connection | None = connection
        self._done = done
        self._receiver: Receiver | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._sending: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: httpx.TransportError | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._room = _MOST_HEADERS
        self._status = 0  # until all headers are there
        self._no_body = False
        self._to_end = False  # the body ends with the connection
        self._inflater: _Inflater | None = None
        self._inflated: Iterator[bytes] = iter(())
        self._pieces: list[bytes] = []
        self._unread = 0
        self._paused = False
        self._complete = False
        self._reusable = False

    async def run(self, head: bytes, body: bytes) -> Response:
        """Send, and return when the response's headers are there. The request is not kept: streams are long."""
        receiver = self._connection.protocol if self._connection is not None else None
        if not isinstance(receiver, Receiver) or receiver.transport is None:
            raise httpx.ReadError("The server closed the connection.")
        self._receiver = receiver
        self._parser = _parser(self)
        self._no_body = head.startswith(b"HEAD ")
        receiver.exchange = self
        if len(body) <= _PIECE:
            receiver.transport.write(head + body)
        else:
            receiver.transport.write(head)
            self._sending = asyncio.create_task(_send(receiver, body))
        while self._error is None and not self._status:
            await self._wait()
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
                await self._more()
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

    async def _more(self) -> None:
        """Wait for more of the body. Raises what ends it."""
        if self._complete:
            if self._inflater is not None and not self._inflater.done:
                raise httpx.ReadError("The compressed answer is not complete.")
            raise StopAsyncIteration
        if self._error is not None:
            raise self._error
        await self._wait()

    async def aclose(self) -> None:
        """The same as `close`."""
        self.close()

    def close(self) -> None:
        """Close the connection, if it is not done with: what the provider still has to send goes nowhere."""
        receiver, self._receiver, self._parser = self._receiver, None, None
        if self._sending is not None:
            self._sending.cancel()
        if receiver is not None:
            receiver.exchange = None
            receiver.abort()
        if self._connection is not None:
            self._connection.close()

    # What the receiver says

    def feed(self, data: bytes) -> None:
        """Bytes came."""
        if self._parser is None:  # what is still underway when it is closed
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(httpx.RemoteProtocolError("The server wants to go on in another protocol."))
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError(str(error) or type(error).__name__))
        if not self._status:
            self._room -= len(data)
        if self._room < 0:
            self._fail(httpx.RemoteProtocolError("The headers are too large."))
        if self._complete:
            self._release()
        elif self._unread > _MOST_UNREAD and not self._paused:
            self._read_on(False)
        self._wake()

    def lost(self, error: BaseException | None) -> None:
        """The connection is closed, in order or by `error`."""
        if self._to_end and error is None:
            self._complete = True
        elif self._error is None:
            self._error = httpx.ReadError(str(error or "") or "The server closed the connection.")
        self.close()
        self._wake()

    # What the parser says

    def on_message_begin(self) -> None:
        """An answer begins. After one that is complete, nobody asked for it."""
        self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is passed over."""
        if not self._status:
            self._headers.append((name, value))
        else:
            self._room -= len(name) + len(value)

    def on_headers_complete(self) -> None:
        """Those of an answer, or of a `100 Continue` before it."""
        if self._parser is None or self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []
            return
        self._status = status
        self._to_end = True
        for name, value in self._headers:
            name = name.lower()
            if name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower()):
                self._to_end = False
            elif name == b"content-encoding":
                self._inflater = _Inflater.of(value)
        if self._no_body:
            self._complete = True

    def on_body(self, data: bytes) -> None:
        """Some of the body."""
        if not self._complete:
            self._pieces.append(data)
            self._unread += len(data)

    def on_message_complete(self) -> None:
        """The end of an answer."""
        if self._parser is not None and self._status and not self._complete:
            self._complete = True
            self._reusable = self._parser.should_keep_alive()

    # What comes of it

    def _fail(self, error: httpx.TransportError) -> None:
        """The connection is of no more use; if the answer was not complete, because of `error`."""
        self._reusable = False
        if not self._complete:
            self._error = error
            self.close()

    def _release(self) -> None:
        """The whole answer is here; the connection can serve another call if the whole request is there."""
        if not self._reusable or (self._sending is not None and not self._sending.done()):
            self.close()
            return
        if self._paused:
            self._read_on(True)
        connection, self._connection = self._connection, None
        receiver, self._receiver, self._parser = self._receiver, None, None
        if receiver is not None and connection is not None:
            receiver.exchange = None
            self._done(connection)

    def _read_on(self, on: bool) -> None:
        """Take more from the socket, or no more for now."""
        transport = self._receiver.transport if self._receiver is not None else None
        if transport is not None:
            self._paused = not on
            (transport.resume_reading if on else transport.pause_reading)()

    async def _wait(self) -> None:
        """Until something has changed."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _parser(exchange: Exchange) -> httptools.HttpResponseParser:
    """As strict as aiohttp's."""
    parser = httptools.HttpResponseParser(exchange)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser


class _Inflater:
    """Takes compression off a body."""

    def __init__(self, encoding: bytes) -> None:
        self._deflate = encoding == b"deflate"
        self._decoder: zlib._Decompress | None = None

    @classmethod
    def of(cls, encoding: bytes) -> _Inflater | None:
        """One for that `content-encoding`, if it is one of those we ask for."""
        encoding = encoding.strip().lower()
        return cls(encoding) if encoding in (b"gzip", b"x-gzip", b"deflate") else None

    @property
    def done(self) -> bool:
        """Whether what came so far, if anything did, is the whole of it."""
        return self._decoder is None or self._decoder.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` stands for, in pieces, since it may be a thousand times as much. Raises httpx.ReadError."""
        try:
            while data:
                if self._decoder is None or self._decoder.eof:
                    self._decoder = zlib.decompressobj(self._bits(data))
                piece = self._decoder.decompress(data, _PIECE)
                if piece:
                    yield piece
                data = self._decoder.unconsumed_tail or self._decoder.unused_data
        except zlib.error as error:
            raise httpx.ReadError(f"The compressed answer cannot be read: {error}") from None

    def _bits(self, data: bytes) -> int:
        """zlib's name of the format. Some leave out the header that `deflate` has (RFC 9110, 8.4.1.2)."""
        if not self._deflate:
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if data[0] & 15 == 8 else -zlib.MAX_WBITS


async def _send(receiver: Receiver, body: bytes) -> None:
    """Hand a large body over as fast as the provider takes it. A break is for who reads the answer to notice."""
    view = memoryview(body)
    with suppress(ConnectionError):
        for start in range(0, len(body), _PIECE):
            await receiver._drain_helper()
            if receiver.transport is None:
                return
            receiver.transport.write(view[start : start + _PIECE])
