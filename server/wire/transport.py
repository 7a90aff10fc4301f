"""The only outbound I/O to providers: HTTP/1.1 on pooled connections.

aiohttp makes the connections: names, TLS, proxies. Keeping them, and what is said
on them, is done here, in exchange.py and in receiver.py: aiohttp's ClientSession
would cost several times as much, httpx's own transport some 3 ms of CPU a call with
16 in flight, and httpx's Request and Response more than sending and receiving, so
that they are for those who have time. (pyreqwest is fast, but a call cancelled before
its headers arrive goes on: the provider keeps generating, and the socket leaks.)

Redirects are not followed: a provider's API never redirects, and credentials
must not go elsewhere. Cancelling a call, or closing a response before its end,
closes the socket.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache, partial
from typing import NamedTuple
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

import aiohttp
import httpx
from aiohttp.client_reqrep import ClientRequest
from aiohttp.hdrs import PROXY_AUTHORIZATION
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from server.wire.connection import Receiver
from server.wire.exchange import Body, Exchange, Response

#: URLs remembered: some providers' name the model.
_MOST_TARGETS = 1000
#: Seconds after which a connection that is not in use is closed.
_IDLE = 30.0
_BODILESS = ("GET", "HEAD")
_DEFAULTS = ((b"user-agent", b"lmchat"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip, deflate"))
_SCHEMES = ("http", "https", "no")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

#: aiohttp's failures to connect in httpx's words, the most special first.
_ERRORS: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.InvalidURL, httpx.LocalProtocolError),
    (aiohttp.NonHttpUrlClientError, httpx.LocalProtocolError),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectionError, httpx.ReadError),
    (OSError, httpx.ReadError),
    (Exception, httpx.RemoteProtocolError),
)
_CAUGHT = (aiohttp.ClientError, HttpProcessingError, OSError)  # TimeoutError is an OSError


def _translate(error: BaseException) -> httpx.TransportError:
    kind = next(to for of, to in _ERRORS if isinstance(error, of))
    return kind(str(error) or type(error).__name__)


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """What `Transport` takes, from the variables that curl reads too, in either case."""
    found = {name: environ.get(f"{name}_proxy") or environ.get(f"{name}_proxy".upper(), "") for name in _SCHEMES}
    return {
        name: value if name == "no" or "://" in value else f"http://{value}"
        for name, value in found.items()
        if value
    }


class _Server:
    """Whom connections lead to, and those that are idle, with the loop's time since when."""

    def __init__(self, url: httpx.URL, proxy: str | None) -> None:
        origin = URL(f"{url.scheme}://{url.netloc.decode('ascii')}")
        #: Kept, since asking for it costs Python before 3.12 a system call.
        self.loop = asyncio.get_running_loop()
        #: What aiohttp takes for the address of a server: a request to it, which is never sent itself.
        self.route = ClientRequest("POST", origin, loop=self.loop, proxy=URL(proxy) if proxy else None)
        #: Requests for http are made to a proxy, with the whole URL; for https it makes a tunnel.
        self.proxied = proxy is not None and url.scheme == "http"
        self.idle: list[tuple[Receiver, float]] = []

    def take(self) -> Receiver | None:
        """The connection that was used last, if that was not long ago and it is still good."""
        oldest = self.loop.time() - _IDLE
        while self.idle:
            receiver, since = self.idle.pop()
            if since >= oldest and receiver.ready():
                return receiver
            receiver.drop()
        return None

    def sweep(self, oldest: float) -> bool:
        """Close what was last used before `oldest`, or is no good; whether any are left."""
        idle, self.idle = self.idle, []
        for receiver, since in idle:
            if since >= oldest and receiver.ready():
                self.idle.append((receiver, since))
            else:
                receiver.drop()
        return bool(self.idle)


class _Target(NamedTuple):
    """What is worked out once for every URL: who serves it, and how a request to it begins."""

    server: _Server
    line: bytes
    host: bytes


class Transport(httpx.AsyncBaseTransport):
    """Pooled connections. Create it, use it and close it on one event loop.

    `proxies` maps `http`, `https` and `no` to what HTTP_PROXY, HTTPS_PROXY and
    NO_PROXY hold; loopback is never reached through a proxy. It is an httpx
    transport too, whose requests' `extensions["timeout"]["connect"]` counts.
    """

    def __init__(self, proxies: Mapping[str, str] | None = None) -> None:
        self._proxies = dict(proxies or {})
        self._connector: aiohttp.TCPConnector | None = None
        self._servers: dict[tuple[str, bytes], _Server] = {}
        self._targets: dict[tuple[str, str], _Target] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, connect: float
    ) -> Response:
        """Send, and return when the response's headers are there. Raises httpx.TransportError.

        `connect` (seconds) bounds connecting; all other limits are the caller's, who cancels.
        """
        target = self._targets.get((method, url)) or self._target(method, url)
        server = target.server
        receiver = server.take()
        if receiver is None:
            receiver = await self._connect(server, connect)
        exchange = Exchange(receiver)
        try:
            lines, sized = _lines(tuple(headers.items()), target.host)
            length = b"" if sized or (not body and method in _BODILESS) else b"content-length: %d\r\n" % len(body)
            if server.proxied:  # not before: connecting gives the route what a proxy wants to be told
                told = server.route.headers.getall(PROXY_AUTHORIZATION, ())
                lines += b"".join([b"proxy-authorization: %b\r\n" % value.encode() for value in told])
            return await exchange.run(b"%b%b%b\r\n" % (target.line, lines, length), body)
        except BaseException:
            exchange.close()
            raise

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The same in httpx's types."""
        body = request.read() if isinstance(request.stream, httpx.SyncByteStream) else await request.aread()
        connect = request.extensions.get("timeout", {}).get("connect", 5.0)
        try:
            response = await self.send(request.method, str(request.url), request.headers, body, connect)
        except httpx.TransportError as error:
            error.request = request
            raise
        return httpx.Response(response.status, headers=response.headers, stream=_Stream(response.body))

    async def aclose(self) -> None:
        """Close every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper = None
        for server in self._servers.values():
            server.sweep(math.inf)
        self._servers.clear()
        self._targets.clear()
        connector, self._connector = self._connector, None
        if connector is not None:
            await connector.close()

    def _target(self, method: str, address: str) -> _Target:
        try:
            url = httpx.URL(address)
            if url.scheme not in ("http", "https") or not url.host:
                raise httpx.InvalidURL(f"no http or https URL: {address}")
            server = self._server(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise httpx.LocalProtocolError(str(error)) from None
        path = b"http://%b%b" % (url.netloc, url.raw_path) if server.proxied else url.raw_path
        target = _Target(server, b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), path), url.netloc)
        if len(self._targets) >= _MOST_TARGETS:
            self._targets.clear()
        self._targets[method, address] = target
        return target

    def _server(self, url: httpx.URL) -> _Server:
        key = (url.scheme, url.netloc)
        server = self._servers.get(key)
        if server is None:
            server = self._servers[key] = _Server(url, self._proxy(url))
        return server

    def _proxy(self, url: httpx.URL) -> str | None:
        proxy = self._proxies.get(url.scheme)
        if not proxy or url.host in _LOOPBACK or proxy_bypass_environment(url.host, self._proxies):
            return None
        return proxy

    async def _connect(self, server: _Server, limit: float) -> Receiver:
        """A new connection. aiohttp counts it as in use until it is closed, and so never lends it itself."""
        if self._connector is None:
            self._connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30)
            loop = asyncio.get_running_loop()
            self._connector._factory = partial(Receiver, loop=loop)  # type: ignore[assignment]  # a subclass's
        try:
            connection = await self._connector.connect(server.route, [], aiohttp.ClientTimeout(sock_connect=limit))
        except TimeoutError:
            raise httpx.ConnectTimeout("no connection in time") from None
        except _CAUGHT as error:
            raise _translate(error) from None
        receiver = connection.protocol
        if not isinstance(receiver, Receiver):
            connection.close()
            raise httpx.ReadError("The server closed the connection.")
        receiver.lend(connection, partial(self._put, server))
        return receiver

    def _put(self, server: _Server, receiver: Receiver) -> None:
        """A connection can serve another call."""
        server.idle.append((receiver, server.loop.time()))
        if self._sweeper is None:
            self._sweeper = server.loop.call_later(_IDLE, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        left = [server.sweep(loop.time() - _IDLE) for server in self._servers.values()]
        self._sweeper = loop.call_later(_IDLE, self._sweep) if any(left) else None


class _Stream(httpx.AsyncByteStream):
    """A body for httpx."""

    def __init__(self, body: Body) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._body:
            yield data

    async def aclose(self) -> None:
        """Close the connection, unless the whole answer has come."""
        await self._body.aclose()


@lru_cache(256)  # an endpoint has the same ones every time, unless it signs them
def _lines(headers: tuple[tuple[str, str], ...], host: bytes) -> tuple[bytes, bool]:
    """Header lines, and whether a length is among them. Raises httpx.LocalProtocolError for a break in a line."""
    lines = [(name.encode(), value.encode()) for name, value in headers]
    given = {name.lower() for name, _ in lines}
    lines += [line for line in (*_DEFAULTS, (b"host", host)) if line[0] not in given]
    joined = b"".join([b"%b: %b\r\n" % line for line in lines])
    if joined.count(b"\n") != len(lines) or joined.count(b"\r") != len(lines) or b"\0" in joined:
        raise httpx.LocalProtocolError("a header has a line break in it")
    return joined, b"content-length" in given
