"""Opens connections to providers: look-up, TCP (RFC 8305, "happy eyeballs"), TLS, tunnels through HTTP proxies."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from functools import lru_cache, partial
from typing import NamedTuple

import aiohappyeyeballs
import httpx

from server.wire.connection import Connection, Headers
from server.wire.resolver import Resolver

#: Seconds after which the next address is tried beside the one before (RFC 8305, section 5).
_NEXT_ADDRESS_DELAY = 0.25

_PORTS = {"http": 80, "https": 443}


class Peer(NamedTuple):
    """A server or a proxy. `host` has no brackets; `tls`: whether it is spoken to over TLS."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: httpx.URL) -> Peer:
        """The peer that `url` leads to. Raises ValueError for another scheme than http and https."""
        if url.scheme not in _PORTS or not url.host:
            raise ValueError(f"neither an http nor an https URL: {url.scheme}://{url.host}")
        return cls(url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme], url.scheme == "https")

    @property
    def authority(self) -> str:
        """`host:port`, as a URL has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Proxy(NamedTuple):
    """An HTTP proxy, and the value of the `proxy-authorization` header it wants; empty for none."""

    peer: Peer
    authorization: bytes

    @classmethod
    def of(cls, address: str) -> Proxy:
        """The proxy at the URL `address`, which may hold a user and a password. Raises ValueError."""
        url = httpx.URL(address)
        credentials = f"{url.username}:{url.password}".encode() if url.userinfo else b""
        return cls(Peer.of(url), b"Basic " + b64encode(credentials) if credentials else b"")


class Connector:
    """Opens connections. `tls` is for servers and proxies; by default it trusts the system's authorities."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls or default_tls()
        self._resolver = Resolver()

    async def connect(self, server: Peer, proxy: Proxy | None, timeout: float) -> Connection:
        """A connection over which requests to `server` can be sent, within `timeout` seconds.

        Over a proxy, a server with TLS is reached through a tunnel; another one by the proxy's own requests.
        Raises httpx.ConnectTimeout, ConnectError or ProxyError.
        """
        try:
            async with asyncio.timeout(timeout):
                if proxy is None:
                    return await self._open(server)
                connection = await self._open(proxy.peer)
                return await self._tunnel(connection, server, proxy) if server.tls else connection
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection to {server.authority} in {timeout:g} s") from None
        except (OSError, RuntimeError, UnicodeError) as error:  # RuntimeError: uvloop's, of sockets
            reason = str(error) or type(error).__name__
            raise httpx.ConnectError(f"cannot connect to {server.authority}: {reason}") from None

    async def aclose(self) -> None:
        """Cancel the look-ups under way."""
        await self._resolver.aclose()

    async def _open(self, peer: Peer) -> Connection:
        loop = asyncio.get_running_loop()
        addresses = await self._resolver.resolve(peer.host, peer.port)
        socket = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_DELAY, loop=loop
        )
        try:
            _, connection = await loop.create_connection(
                partial(Connection, loop),
                sock=socket,
                ssl=self._tls if peer.tls else None,
                server_hostname=peer.host.rstrip(".") if peer.tls else None,
            )
        except BaseException:
            socket.close()  # in case the loop had not taken it over yet
            raise
        return connection

    async def _tunnel(self, connection: Connection, server: Peer, proxy: Proxy) -> Connection:
        """Have the proxy connect to `server`, and speak TLS with that."""
        loop = connection.loop
        tunnel = _Tunnel(loop)
        try:
            connection.listen(tunnel, bodiless=True)
            if connection.transport is not None:
                connection.transport.write(_connect_request(server, proxy))
            await tunnel.established
            transport = connection.detach()
        except BaseException:
            connection.drop()
            raise
        if transport is None:
            raise httpx.ProxyError("The proxy closed the connection.")
        inner = Connection(loop)
        try:
            encrypted = await loop.start_tls(transport, inner, self._tls, server_hostname=server.host.rstrip("."))
        except BaseException:
            transport.abort()
            raise
        if encrypted is None:
            raise httpx.ProxyError("The proxy closed the connection.")
        inner.connection_made(encrypted)
        return inner


class _Tunnel:
    """The listener for a proxy's response to CONNECT."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.established: asyncio.Future[None] = loop.create_future()

    def begin(self, status: int, headers: Headers) -> None:
        """See `Listener`, as for the methods below."""
        if 200 <= status < 300:
            self.established.set_result(None)
        else:
            self._refuse(f"The proxy refused the tunnel with status {status}.")

    def add(self, data: bytes) -> None:
        """Not called: the response has no body."""

    def more(self) -> None:
        """The headers are not complete yet."""

    def end(self) -> None:
        """`begin` was called."""

    def fail(self, error: httpx.TransportError) -> None:
        """The proxy does not speak HTTP."""
        self._refuse(f"The proxy's response cannot be read: {error}")

    def lost(self, error: BaseException | None) -> None:
        """The proxy closed the connection."""
        self._refuse(str(error or "The proxy closed the connection."))

    def _refuse(self, reason: str) -> None:
        if not self.established.done():
            self.established.set_exception(httpx.ProxyError(reason))


def _connect_request(server: Peer, proxy: Proxy) -> bytes:
    authority = server.authority.encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"host: %b" % authority, b"user-agent: lmchat"]
    if proxy.authorization:
        lines.append(b"proxy-authorization: %b" % proxy.authorization)
    return b"\r\n".join([*lines, b"", b""])


@lru_cache(1)
def default_tls() -> ssl.SSLContext:
    """A context that trusts the system's authorities. Takes some 20 ms to make, hence once."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(("http/1.1",))
    return context
