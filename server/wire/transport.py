"""The only outbound I/O: an httpx transport over aiohttp's connections.

httpx's own transport costs some 3 ms of CPU a call with 16 in flight, so httpx
lends its types, and aiohttp its pool, name resolution, TLS and proxies. What is
said on a connection is exchange.py's; aiohttp's ClientSession would cost several
times as much. (pyreqwest is fast, but a call cancelled before its headers arrive
goes on: the provider keeps generating, and the socket leaks.) Tests put
httpx.MockTransport in its place.

Redirects are not followed: a provider's API never redirects, and credentials
must not go elsewhere. Cancelling a call, or closing a response before its end,
closes the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

import aiohttp
import httpx
from aiohttp.client_reqrep import ClientRequest
from aiohttp.hdrs import PROXY_AUTHORIZATION
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from server.wire.exchange import Exchange, Protocol

#: Servers remembered.
_MOST_ROUTES = 1000
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


def _translate(error: BaseException, request: httpx.Request) -> httpx.TransportError:
    kind = next(to for of, to in _ERRORS if isinstance(error, of))
    return kind(str(error) or type(error).__name__, request=request)


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """What `Transport` takes, from the variables that curl reads too, in either case."""
    found = {name: environ.get(f"{name}_proxy") or environ.get(f"{name}_proxy".upper(), "") for name in _SCHEMES}
    return {
        name: value if name == "no" or "://" in value else f"http://{value}"
        for name, value in found.items()
        if value
    }


class Transport(httpx.AsyncBaseTransport):
    """Pooled connections. Create it, use it and close it on one event loop.

    A request's `extensions["timeout"]["connect"]` (seconds) bounds connecting;
    all other limits are the caller's, who cancels. `proxies` maps `http`,
    `https` and `no` to what HTTP_PROXY, HTTPS_PROXY and NO_PROXY hold; loopback
    is never reached through a proxy.
    """

    def __init__(self, proxies: Mapping[str, str] | None = None) -> None:
        self._proxies = dict(proxies or {})
        self._connector: aiohttp.TCPConnector | None = None
        self._routes: dict[tuple[str, bytes], ClientRequest] = {}

    def _pool(self) -> aiohttp.TCPConnector:
        if self._connector is None:
            self._connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, keepalive_timeout=30)
            loop = asyncio.get_running_loop()
            self._connector._factory = partial(Protocol, loop=loop)  # type: ignore[assignment]  # a subclass's
        return self._connector

    def _route(self, url: httpx.URL) -> ClientRequest:
        """What the pool takes for the address of a server: a request to it, which is never sent itself."""
        key = (url.scheme, url.netloc)
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= _MOST_ROUTES:
                self._routes.clear()
            if url.scheme not in ("http", "https") or not url.host:
                raise ValueError(f"no http or https URL: {url}")
            proxy = self._proxy(url)
            origin = URL(f"{url.scheme}://{url.netloc.decode('ascii')}")
            loop = asyncio.get_running_loop()
            route = ClientRequest("POST", origin, loop=loop, proxy=URL(proxy) if proxy else None)
            self._routes[key] = route
        return route

    def _proxy(self, url: httpx.URL) -> str | None:
        proxy = self._proxies.get(url.scheme)
        if not proxy or url.host in _LOOPBACK or proxy_bypass_environment(url.host, self._proxies):
            return None
        return proxy

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and return when the response's headers are there. Raises httpx.TransportError."""
        limit = aiohttp.ClientTimeout(sock_connect=request.extensions.get("timeout", {}).get("connect", 5.0))
        body = request.read() if isinstance(request.stream, httpx.SyncByteStream) else await request.aread()
        try:
            route = self._route(request.url)
        except ValueError as error:
            raise httpx.LocalProtocolError(str(error), request=request) from None
        try:
            connection = await self._pool().connect(route, [], limit)
        except TimeoutError:
            raise httpx.ConnectTimeout("no connection in time", request=request) from None
        except _CAUGHT as error:
            raise _translate(error, request) from None
        exchange = Exchange(connection)
        try:
            # Not before: connecting gives the route what a proxy wants to be told.
            return await exchange.run(_head(request, route, len(body)), body)
        except httpx.TransportError as error:
            exchange.close()
            error.request = request
            raise
        except BaseException:
            exchange.close()
            raise

    async def aclose(self) -> None:
        """Close every connection."""
        connector, self._connector = self._connector, None
        if connector is not None:
            await connector.close()


def _head(request: httpx.Request, route: ClientRequest, size: int) -> bytes:
    """Request line and headers. Raises httpx.LocalProtocolError for what would break out of its line."""
    url, target, lines = request.url, request.url.raw_path, [*request.headers.raw]
    if route.proxy is not None and url.scheme == "http":  # https goes through a tunnel of the pool's making
        target = b"http://%b%b" % (url.netloc, target)
        lines += ((b"proxy-authorization", v.encode()) for v in route.headers.getall(PROXY_AUTHORIZATION, ()))
    given = {name.lower() for name, _ in lines}
    lines += [line for line in _DEFAULTS if line[0] not in given]
    if b"host" not in given:
        lines.append((b"host", url.netloc))
    if b"content-length" not in given and (size or request.method not in ("GET", "HEAD")):
        lines.append((b"content-length", b"%d" % size))
    head = b"".join([b"%b: %b\r\n" % line for line in lines])
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
        raise httpx.LocalProtocolError("a header has a line break in it", request=request)
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (request.method.encode("ascii"), target, head)
