"""The only outbound I/O to providers: HTTP/1.1 on pooled connections.

A call is on the gateway's critical path: aiohttp's ClientSession costs several
times as much CPU as this, and httpx's own transport some 3 ms a call with 16 in
flight; httpx's Request and Response cost more than sending and receiving. So
connector.py opens connections, exchange.py and connection.py use them, and httpx's types
are offered beside, for rare calls such as those for tokens.

Redirects are not followed: a provider's API never redirects, and credentials
must not be sent elsewhere. Cancelling a call, or closing a response before its
end, closes the socket, so that the provider stops generating.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache, partial
from typing import NamedTuple
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

import httpx

from server.wire.connection import Connection
from server.wire.connector import Connector, Peer, Proxy
from server.wire.exchange import MAX_BODY_BYTES, Body, Exchange, Response

#: URLs whose targets are cached: some providers' URLs name the model.
MAX_TARGETS = 1000
#: Seconds after which an idle connection is closed.
IDLE_TIMEOUT = 30.0
#: Seconds to connect where a request of httpx's does not say.
_CONNECT_TIMEOUT = 5.0
_BODILESS = ("GET", "HEAD")
_DEFAULT_HEADERS = ((b"user-agent", b"lmchat"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip, deflate"))
_PROXY_VARIABLES = ("http", "https", "no")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The `proxies` of a Transport, from the variables that curl reads too, in either case."""
    values = {
        name: environ.get(f"{name}_proxy") or environ.get(f"{name}_proxy".upper(), "") for name in _PROXY_VARIABLES
    }
    return {
        name: value if name == "no" or "://" in value else f"http://{value}"
        for name, value in values.items()
        if value
    }


class _Origin:
    """One scheme, host and port, with its proxy and its idle connections, each with the start of its idle time."""

    def __init__(self, url: httpx.URL, proxy: str | None) -> None:
        self.peer = Peer.of(url)
        self.proxy = Proxy.of(proxy) if proxy else None
        #: Kept, since asking for it costs Python before 3.12 a system call.
        self.loop = asyncio.get_running_loop()
        #: Whether requests are sent to the proxy, with the whole URL; else it makes a tunnel, or there is none.
        self.forwarded = self.proxy is not None and not self.peer.tls
        self.idle: list[tuple[Connection, float]] = []

    def take(self) -> Connection | None:
        """The connection that was used last, if it is still usable."""
        oldest = self.loop.time() - IDLE_TIMEOUT
        while self.idle:
            connection, since = self.idle.pop()
            if since >= oldest and connection.ready():
                return connection
            connection.drop()
        return None

    def sweep(self, oldest: float) -> bool:
        """Close the connections that were last used before `oldest`, or are not usable; whether any are left."""
        idle, self.idle = self.idle, []
        for connection, since in idle:
            if since >= oldest and connection.ready():
                self.idle.append((connection, since))
            else:
                connection.drop()
        return bool(self.idle)


class _Target(NamedTuple):
    """What is computed once for a method and URL: the origin, the request line, the `host` header."""

    origin: _Origin
    line: bytes
    host: bytes


class Transport(httpx.AsyncBaseTransport):
    """Pooled connections. Create it, use it and close it on one event loop.

    `proxies` maps `http`, `https` and `no` to what HTTP_PROXY, HTTPS_PROXY and
    NO_PROXY hold; loopback is never reached through a proxy. `tls` is by default
    a context that trusts the system's authorities. It is an httpx transport too, whose requests'
    `extensions["timeout"]["connect"]` counts.
    """

    def __init__(self, proxies: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._proxies = dict(proxies or {})
        self._connector = Connector(tls)
        self._origins: dict[tuple[str, bytes], _Origin] = {}
        self._targets: dict[tuple[str, str], _Target] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, connect: float
    ) -> Response:
        """Send a request, and return when the response's headers are there. Raises httpx.TransportError.

        `connect` (seconds) bounds connecting; all other limits are the caller's, who cancels.
        """
        target = self._targets.get((method, url)) or self._target(method, url)
        origin = target.origin
        connection = origin.take()
        if connection is None:
            connection = await self._connector.connect(origin.peer, origin.proxy, connect)
            connection.lend(partial(self._put, origin))
        exchange = Exchange(connection)
        try:
            lines, has_length = _header_lines(tuple(headers.items()), target.host)
            if not has_length and (body or method not in _BODILESS):
                lines += b"content-length: %d\r\n" % len(body)
            if origin.forwarded and origin.proxy is not None and origin.proxy.authorization:
                lines += b"proxy-authorization: %b\r\n" % origin.proxy.authorization
            return await exchange.run(b"%b%b\r\n" % (target.line, lines), body)
        except BaseException:
            exchange.close()
            raise

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The same in httpx's types."""
        body = request.read() if isinstance(request.stream, httpx.SyncByteStream) else await request.aread()
        connect = request.extensions.get("timeout", {}).get("connect", _CONNECT_TIMEOUT)
        try:
            response = await self.send(request.method, str(request.url), request.headers, body, connect)
        except httpx.TransportError as error:
            error.request = request
            raise
        return httpx.Response(response.status, headers=response.headers, stream=_Stream(response.body))

    async def aclose(self) -> None:
        """Close every idle connection. Those in use are closed with their exchanges."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper = None
        for origin in self._origins.values():
            origin.sweep(math.inf)
        self._origins.clear()
        self._targets.clear()
        await self._connector.aclose()

    def _target(self, method: str, address: str) -> _Target:
        try:
            url = httpx.URL(address)
            origin = self._origin(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise httpx.LocalProtocolError(str(error)) from None
        path = b"http://%b%b" % (url.netloc, url.raw_path) if origin.forwarded else url.raw_path
        target = _Target(origin, b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), path), url.netloc)
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        self._targets[method, address] = target
        return target

    def _origin(self, url: httpx.URL) -> _Origin:
        key = (url.scheme, url.netloc)
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = _Origin(url, self._proxy(url))
        return origin

    def _proxy(self, url: httpx.URL) -> str | None:
        proxy = self._proxies.get(url.scheme)
        if not proxy or url.host in _LOOPBACK or proxy_bypass_environment(url.host, self._proxies):
            return None
        return proxy

    def _put(self, origin: _Origin, connection: Connection) -> None:
        """Make a connection available to other calls."""
        origin.idle.append((connection, origin.loop.time()))
        if self._sweeper is None:
            self._sweeper = origin.loop.call_later(IDLE_TIMEOUT, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        left = [origin.sweep(loop.time() - IDLE_TIMEOUT) for origin in self._origins.values()]
        self._sweeper = loop.call_later(IDLE_TIMEOUT, self._sweep) if any(left) else None


class _Stream(httpx.AsyncByteStream):
    """A body for httpx, which reads it as a whole: at most MAX_BODY_BYTES."""

    def __init__(self, body: Body) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for data in self._body:
            size += len(data)
            if size > MAX_BODY_BYTES:
                raise httpx.ReadError(f"The response is larger than {MAX_BODY_BYTES} bytes.")
            yield data

    async def aclose(self) -> None:
        """Close the socket, unless the whole response has been received."""
        await self._body.aclose()


@lru_cache(256)  # an endpoint sends the same ones with every call, unless it signs them
def _header_lines(headers: tuple[tuple[str, str], ...], host: bytes) -> tuple[bytes, bool]:
    """Header lines, and whether a length is among them. Raises httpx.LocalProtocolError for a break in a line."""
    lines = [(name.encode(), value.encode()) for name, value in headers]
    names = {name.lower() for name, _ in lines}
    lines += [line for line in (*_DEFAULT_HEADERS, (b"host", host)) if line[0] not in names]
    joined = b"".join([b"%b: %b\r\n" % line for line in lines])
    if joined.count(b"\n") != len(lines) or joined.count(b"\r") != len(lines) or b"\0" in joined:
        raise httpx.LocalProtocolError("a header has a line break in it")
    return joined, b"content-length" in names
