"""The client's end of one HTTP/1.1 connection: an asyncio protocol around llhttp, by way of httptools.

One parser serves all responses of a connection. The state says what the next bytes mean:

    State         meaning                                          next state, and what leads to it
    IDLE          a request may be sent; bytes are unexpected      HEADERS or HEADERS_ONLY: listen();
                                                                   MUST_CLOSE: unexpected bytes, end of input
    HEADERS       the headers of a final response are awaited      BODY: they are complete
    HEADERS_ONLY  the same, where no body follows: HEAD, CONNECT   MUST_CLOSE: they are complete
    BODY          the body of the response is awaited              IDLE: its end; MUST_CLOSE: its end, where the
                                                                   server closes or has sent more than the response
    MUST_CLOSE    no further request may be sent                   CLOSED
    CLOSED        the socket is closed, or about to be             none

From every state, a violation of the protocol leads to MUST_CLOSE, and drop() or the loss of the socket to CLOSED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, cast

import httptools
import httpx

#: Bytes of headers, of trailers, and of what frames a body between two parts of it. Providers send about 2,000.
MAX_HEADER_BYTES = 128 * 1024
#: Headers and trailers of one response, those of interim ones included. Providers send about 40.
MAX_HEADERS = 1024

Headers = list[tuple[bytes, bytes]]
"""Names and values as the server sent them."""


class State(Enum):
    """See the table at the head of the module."""

    IDLE = auto()
    HEADERS = auto()
    HEADERS_ONLY = auto()
    BODY = auto()
    MUST_CLOSE = auto()
    CLOSED = auto()


_HEADERS = frozenset({State.HEADERS, State.HEADERS_ONLY})
_COMPLETE = frozenset({State.IDLE, State.MUST_CLOSE})


class Listener(Protocol):
    """What a response is delivered to."""

    def begin(self, status: int, headers: Headers) -> None:
        """The headers of the final response; interim ones (1xx) are skipped."""

    def add(self, data: bytes) -> None:
        """A part of the body; `more` or `end` follows."""

    def more(self) -> None:
        """Everything one read brought has been delivered."""

    def end(self) -> None:
        """The response is complete. The connection has no listener any more; if `ready`, it can be released."""

    def fail(self, error: httpx.TransportError) -> None:
        """The server violates the protocol; the rest of the response is lost."""

    def lost(self, error: BaseException | None) -> None:
        """The socket was closed, in order or by `error`, before the end of the response."""


class Connection(asyncio.Protocol):
    """One connection, with one listener at a time. Its user drops it in the end, or releases it if it is `ready`.

    `loop` is the running event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        #: Done when the socket is closed.
        self.closed: asyncio.Future[None] = loop.create_future()
        self._state = State.IDLE
        self._pool: Callable[[Connection], None] | None = None
        self._listener: Listener | None = None
        self._parser: httptools.HttpResponseParser | None = _parser(self)
        self._headers: Headers = []
        self._headers_left = MAX_HEADERS
        self._header_bytes_left = MAX_HEADER_BYTES
        self._has_body = False  # whether the current read brought a part of a body
        self._writable: asyncio.Future[None] | None = None  # None while the write buffer has room

    def lend(self, pool: Callable[[Connection], None]) -> None:
        """`pool` gets the connection when it is released."""
        self._pool = pool

    def listen(self, listener: Listener, *, bodiless: bool) -> None:
        """Deliver the next response to `listener`. `bodiless`: no body follows, whatever its headers say."""
        self._listener = listener
        self._headers = []
        self._headers_left = MAX_HEADERS
        self._header_bytes_left = MAX_HEADER_BYTES
        self._state = State.HEADERS_ONLY if bodiless else State.HEADERS

    def ready(self) -> bool:
        """Whether a request can be sent."""
        return self._state is State.IDLE and self.transport is not None and not self.transport.is_closing()

    def release(self) -> None:
        """Return the connection to its pool."""
        if self._pool is not None:
            self._pool(self)

    def drop(self) -> None:
        """Close the socket at once, without waiting for what is in flight."""
        self._listener = self._pool = self._parser = None  # the parser refers back: a cycle, which this breaks
        self._state = State.CLOSED
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    def detach(self) -> asyncio.Transport | None:
        """Give up the transport, to which another protocol is attached; None where the socket is closed."""
        transport, self.transport = self.transport, None
        self.drop()
        return transport

    async def drain(self) -> None:
        """Wait until the write buffer has room. Raises ConnectionResetError when the socket is closed."""
        if self._writable is not None:
            await self._writable
        if self.transport is None:
            raise ConnectionResetError("the connection is closed")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """The socket has read `data`."""
        listener, parser = self._listener, self._parser
        if listener is None or parser is None:
            if self._state is State.IDLE:
                self._state = State.MUST_CLOSE
            return
        failure = ""
        self._has_body = False
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            failure = "The server switches to another protocol."
        except httptools.HttpParserError as error:
            failure = str(error) or type(error).__name__
        if self._has_body:
            self._header_bytes_left = MAX_HEADER_BYTES
        else:
            self._header_bytes_left -= len(data)
        if self._header_bytes_left < 0 or self._headers_left < 0:
            failure = f"The headers are too large: more than {MAX_HEADER_BYTES} bytes, or {MAX_HEADERS} headers."
        complete = self._state in _COMPLETE
        if failure and self._state is not State.CLOSED:
            self._state = State.MUST_CLOSE
        if complete:
            self._listener = None
            listener.end()
        elif failure:
            listener.fail(httpx.RemoteProtocolError(failure))
        else:
            listener.more()

    def eof_received(self) -> None:
        """The server sends nothing more; the socket closes next."""
        if self._state is State.IDLE:
            self._state = State.MUST_CLOSE

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket is closed."""
        self._state = State.CLOSED
        self.transport = None
        self.resume_writing()
        if not self.closed.done():
            self.closed.set_result(None)
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.lost(exc)

    def pause_writing(self) -> None:
        """The write buffer is full."""
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # httptools' callbacks

    def on_message_begin(self) -> None:
        """A response begins; after a complete one, an unexpected one."""
        if self._state is State.IDLE:
            self._state = State.MUST_CLOSE

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is skipped."""
        self._headers_left -= 1
        if self._headers_left < 0:
            raise ValueError("too many headers")  # the parser stops, and says that this callback failed
        if self._state is not State.BODY:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The headers of a response, interim or final."""
        if self._listener is None or self._parser is None or self._state not in _HEADERS:
            return
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        if status < 200:
            return
        # The parser would wait for the body of a bodiless response, and is of no use after it.
        self._state = State.BODY if self._state is State.HEADERS else State.MUST_CLOSE
        self._listener.begin(status, headers)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self._listener is not None and self._state is State.BODY:
            self._has_body = True
            self._listener.add(data)

    def on_message_complete(self) -> None:
        """The end of a response, interim or final."""
        if self._parser is not None and self._state is State.BODY:
            self._state = State.IDLE if self._parser.should_keep_alive() else State.MUST_CLOSE


def _parser(connection: Connection) -> httptools.HttpResponseParser:
    """A parser that accepts the header values, line ends and chunk sizes that servers get wrong in practice."""
    parser = httptools.HttpResponseParser(connection)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser
