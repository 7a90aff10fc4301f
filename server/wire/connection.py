"""aiohttp's end of a connection to a provider, with llhttp as its parser, by way of httptools.

aiohttp's own reader (a queue of messages, a multidict, a stream with timers)
costs more than the rest of a small call. One parser serves all answers of a
connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

#: Bytes of headers, and of trailers. Providers send some 2,000.
_MOST_HEADERS = 2**17

Headers = list[tuple[bytes, bytes]]
"""As they were sent."""


class Listener(Protocol):
    """Whom an answer is for."""

    def begin(self, status: int, headers: Headers) -> None:
        """An answer begins; not an interim one."""

    def add(self, data: bytes) -> None:
        """Some of its body; then comes `more` or `end`."""

    def more(self) -> None:
        """What one read brought has been told."""

    def end(self) -> None:
        """The answer is complete. The connection listens to nobody now; if it is `ready`, it can serve others."""

    def fail(self, error: httpx.TransportError) -> None:
        """The rest is not to be understood."""

    def lost(self, error: BaseException | None) -> None:
        """The connection is closed, in order or by `error`, before the end of the answer."""


class Receiver(ResponseHandler):
    """Has one listener at a time. Whoever has it drops it in the end, or releases it if it is `ready`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.loop = loop
        self._connection: Connection | None = None
        self._done: Callable[[Receiver], None] | None = None
        self._listener: Listener | None = None
        self._llhttp: httptools.HttpResponseParser | None = _parser(self)
        #: Whether anything came that was not asked for, or after which nothing can.
        self._spoilt = False
        self._headers: Headers = []
        self._room = _MOST_HEADERS
        self._bodiless = False
        self._begun = False
        self._complete = False

    def lend(self, connection: Connection, done: Callable[[Receiver], None]) -> None:
        """It is the end of `connection`, which lives as long; `done` gets it when it is released."""
        self._connection = connection
        self._done = done

    def listen(self, listener: Listener, *, bodiless: bool) -> None:
        """The next answer is for `listener`. `bodiless`: what its headers say of a body is not meant."""
        self._listener = listener
        self._headers = []
        self._room = _MOST_HEADERS
        self._bodiless = bodiless
        self._begun = self._complete = False

    def ready(self) -> bool:
        """Whether it can serve a call."""
        return not self._spoilt and self.transport is not None and not self.transport.is_closing()

    def release(self) -> None:
        """Leave it to other calls."""
        if self._done is not None:
            self._done(self)

    def drop(self) -> None:
        """Close the connection: what is still underway goes nowhere."""
        self._listener = self._done = self._llhttp = None  # the last would keep it until the next collection
        self._spoilt = True
        self.abort()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # What the socket says

    def data_received(self, data: bytes) -> None:
        """Bytes came. Without a listener it is a proxy that answers, or a server that speaks unasked."""
        listener, parser = self._listener, self._llhttp
        if listener is None or parser is None:
            self._spoilt = True
            super().data_received(data)
            return
        failure = ""
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            failure = "The server wants to go on in another protocol."
        except httptools.HttpParserError as error:
            failure = str(error) or type(error).__name__
        if not self._begun:
            self._room -= len(data)
        if self._room < 0:
            failure = "The headers are too large."
        if failure:
            self._spoilt = True
        if self._complete:
            self._listener = None
            listener.end()
        elif failure:
            listener.fail(httpx.RemoteProtocolError(failure))
        else:
            listener.more()

    def eof_received(self) -> None:
        """Nothing more comes; the socket is about to be closed."""
        self._spoilt = True
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket is closed."""
        self._spoilt = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.lost(exc)
        super().connection_lost(exc)

    # What the parser says

    def on_message_begin(self) -> None:
        """An answer begins. After one that is complete, nobody asked for it."""
        if self._complete:
            self._spoilt = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is passed over."""
        if not self._begun:
            self._headers.append((name, value))
        else:
            self._room -= len(name) + len(value)

    def on_headers_complete(self) -> None:
        """Those of an answer, or of a `100 Continue` before it."""
        if self._listener is None or self._llhttp is None or self._begun:
            return
        status = self._llhttp.get_status_code()
        if status < 200:
            self._headers = []
            return
        self._begun = True
        headers, self._headers = self._headers, []
        self._listener.begin(status, headers)
        if self._bodiless:  # the parser would wait for a body
            self._complete = self._spoilt = True

    def on_body(self, data: bytes) -> None:
        """Some of the body."""
        if self._listener is not None and not self._complete:
            self._listener.add(data)

    def on_message_complete(self) -> None:
        """The end of an answer."""
        if self._llhttp is not None and self._begun and not self._complete:
            self._complete = True
            if not self._llhttp.should_keep_alive():
                self._spoilt = True


def _parser(receiver: Receiver) -> httptools.HttpResponseParser:
    """As strict as aiohttp's."""
    parser = httptools.HttpResponseParser(receiver)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser
