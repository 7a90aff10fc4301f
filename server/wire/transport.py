"""The only outbound I/O: an httpx transport over aiohttp.

httpx's own transport costs some 3 ms of CPU a call with 16 in flight, aiohttp
0.2 ms, so httpx lends its types and aiohttp does the work. (pyreqwest would
cost half of that, but a call cancelled before its headers arrive goes on: the
provider keeps generating, and the socket leaks.) Tests put httpx.MockTransport
in its place.

Redirects are not followed: a provider's API never redirects, and credentials
must not go elsewhere. Cancelling a call, or closing a response before its end,
closes the socket.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

import aiohttp
import httpx
from yarl import URL

#: Bytes from which aiohttp wants a file.
_LARGE = 2**20
_SCHEMES = ("http", "https", "no")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

#: aiohttp's failures in httpx's words, the most special first.
_ERRORS: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.InvalidURL, httpx.LocalProtocolError),
    (aiohttp.NonHttpUrlClientError, httpx.LocalProtocolError),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectionError, httpx.ReadError),
    (aiohttp.ClientPayloadError, httpx.ReadError),
    (OSError, httpx.ReadError),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
)
_CAUGHT = (aiohttp.ClientError, OSError)  # TimeoutError is an OSError


def _translate(error: BaseException, request: httpx.Request) -> httpx.TransportError:
    kind = next(to for of, to in _ERRORS if isinstance(error, of))
    return kind(str(error) or type(error).__name__, request=request)


def _payload(content: bytes) -> bytes | io.BytesIO | None:
    """Large bodies as files: aiohttp warns that it would copy them at once."""
    if len(content) > _LARGE:
        return io.BytesIO(content)
    return content or None


@lru_cache(1024)
def _url(url: str) -> URL:
    """As it was written: Bedrock's `%3A` must stay one."""
    return URL(url, encoded=True)


class _Body(httpx.AsyncByteStream):
    """A response's bytes, as they come; never waits to fill a buffer."""

    def __init__(self, response: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while data := await content.readany():
                yield data
        except _CAUGHT as error:
            raise _translate(error, self._request) from None

    async def aclose(self) -> None:
        """Back into the pool if it was read to its end, else closed."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


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
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"user-agent": "lmchat"},
            )
        return self._session

    def _proxy(self, url: httpx.URL) -> str | None:
        proxy = self._proxies.get(url.scheme)
        if not proxy or url.host in _LOOPBACK or proxy_bypass_environment(url.host, self._proxies):
            return None
        return proxy

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and return when the response's headers are there. Raises httpx.TransportError."""
        connect = request.extensions.get("timeout", {}).get("connect", 5.0)
        try:
            response = await self._open().request(
                request.method,
                _url(str(request.url)),
                data=_payload(request.content),
                headers=request.headers.multi_items(),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
                proxy=self._proxy(request.url) if self._proxies else None,
            )
        except _CAUGHT as error:
            raise _translate(error, request) from None
        except ValueError as error:  # a URL or header that cannot be sent
            raise httpx.LocalProtocolError(str(error), request=request) from None
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response, request))

    async def aclose(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
