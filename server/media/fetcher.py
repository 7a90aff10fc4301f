"""Fetches what callers name by URL, for providers that want bytes, without letting callers reach our own network.

What is allowed is decided for the very address a socket is about to connect to,
at every redirect anew: whatever a name, a resolver or a server says, there is no
second look-up between the check and the connection.

Fetches share no connections, cookies, proxies or credentials. Errors do not tell
a name that does not resolve from one that leads to an internal address.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from server.config.model import Fetch
from server.errors import InvalidRequest
from server.media.addresses import AllowList
from server.media.mime import media_type
from server.wire.resolver import LookupPool

MAX_REDIRECTS = 3
MAX_URL_LENGTH = 8192  # characters
_STANDARD_PORTS = frozenset({80, 443})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "user-agent": "lmchat",
    "accept": "image/*, application/pdf, text/*, audio/*;q=0.9, */*;q=0.1",
    "accept-encoding": "identity",
}
_UNREACHABLE = "The host cannot be reached on the public internet."

#: A URL of these characters is sent as it is written, since it may be signed.
_UNENCODED = re.compile(r"[!#-;=?-~]+", re.ASCII)


class Media(NamedTuple):
    """A file that was fetched: its media type, recognized by its bytes, in lower case and without parameters."""

    type: str
    data: bytes


class Fetcher:
    """`await fetcher(url)` gives the file at `url`.

    Raises InvalidRequest, without a path, with a reason for callers. `resolver` is by default the system's, in
    threads that providers' connections do not share.
    """

    def __init__(self, settings: Fetch, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._allow_list = AllowList(settings.allow)
        self._resolver = resolver or SystemResolver()

    async def __call__(self, url: str) -> Media:
        """The file at `url`, after at most MAX_REDIRECTS redirects."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                target = _parse(url)
                for _ in range(MAX_REDIRECTS + 1):
                    response = await self._get(target)
                    if isinstance(response, Media):
                        return response
                    target = response
        except TimeoutError:
            raise InvalidRequest(f"It could not be fetched within {self._settings.timeout:g} s.") from None
        raise InvalidRequest(f"More than {MAX_REDIRECTS} redirects.")

    async def _get(self, url: URL) -> Media | URL:
        """The file at `url`, or the URL that the server redirects to."""
        host, standard = url.host or "", url.scheme == "https" and url.port in _STANDARD_PORTS
        host_allowed = self._allow_list.host(host)
        if not standard and not host_allowed and not self._allow_list.networks:
            raise InvalidRequest("Only https: URLs on the usual port are fetched.")

        def connect(info: tuple[int, int, int, str, tuple[str, int]]) -> socket.socket:
            family, kind, protocol, _, address = info
            if not self._allow_list.address(address[0], host_allowed=host_allowed, standard=standard):
                raise PermissionError("not a public address")
            return socket.socket(family, kind, protocol)

        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            force_close=True,
            socket_factory=connect,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        try:
            async with session, session.get(url, headers=_HEADERS, allow_redirects=False) as response:
                if response.status in _REDIRECTS:
                    return _redirected(url, response.headers.get("location", ""))
                return await self._read(response)
        except aiohttp.ClientConnectorCertificateError:
            raise InvalidRequest("The host's certificate is not valid.") from None
        except aiohttp.ClientPayloadError:
            raise InvalidRequest("The host broke off.") from None
        except TimeoutError:  # an OSError too
            raise
        except (aiohttp.ClientError, OSError, ValueError):
            raise InvalidRequest(_UNREACHABLE) from None

    async def _read(self, response: aiohttp.ClientResponse) -> Media:
        """The body, checked."""
        max_bytes = self._settings.max_bytes
        too_large = f"Larger than {max_bytes} bytes."
        if response.status != 200:
            raise InvalidRequest(f"The host answered with status {response.status}.")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise InvalidRequest("The host sent it compressed without being asked.")
        if (response.content_length or 0) > max_bytes:
            raise InvalidRequest(too_large)
        data = bytearray()
        while piece := await response.content.readany():
            data += piece
            if len(data) > max_bytes:
                raise InvalidRequest(too_large)
        if not data:
            raise InvalidRequest("There is nothing in it.")
        type_ = media_type(bytes(data), response.headers.get("content-type", ""))
        if not type_:
            raise InvalidRequest("Neither an image, a PDF, sound, nor text in UTF-8.")
        return Media(type_, bytes(data))


class SystemResolver(AbstractResolver):
    """getaddrinfo in a private thread pool."""

    def __init__(self) -> None:
        self._pool = LookupPool()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises OSError."""
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for family, _, protocol, _, address in await self._pool.lookup(host, port, family)
        ]

    async def close(self) -> None:
        """Nothing: a connector calls this after each fetch, and the threads serve them all."""


def _parse(url: str) -> URL:
    """An absolute URL without credentials."""
    if len(url) > MAX_URL_LENGTH:
        raise InvalidRequest(f"Longer than {MAX_URL_LENGTH} characters.")
    try:
        return _checked(URL(url, encoded=bool(_UNENCODED.fullmatch(url))))
    except ValueError:
        raise InvalidRequest("Not a URL.") from None


def _redirected(url: URL, location: str) -> URL:
    if not location:
        raise InvalidRequest("The host redirects to nowhere.")
    return _checked(url.join(URL(location, encoded=bool(_UNENCODED.fullmatch(location)))))


def _checked(url: URL) -> URL:
    if url.scheme not in ("http", "https"):
        raise InvalidRequest("Only https: URLs are fetched.")
    if not url.host or url.port is None:
        raise InvalidRequest("Not a URL.")
    if url.user is not None or url.password is not None:
        raise InvalidRequest("A URL with a user or a password in it is not fetched.")
    return url
