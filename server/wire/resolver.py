"""DNS look-ups in bounded thread pools.

getaddrinfo blocks, for many seconds where a name server does not answer. The
event loop's own pool would be shared by everyone: callers' URLs with names that
do not resolve would keep providers from being connected to. So each user of look-ups
has a pool.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""Family, type, protocol, canonical name and socket address, as getaddrinfo returns them."""

#: Threads of one pool: look-ups at a time. Further ones are queued.
MAX_LOOKUPS = 8
#: Seconds for which addresses are cached. getaddrinfo does not tell the records' own time to live.
CACHE_TTL = 30.0
#: Names whose addresses are cached.
MAX_CACHED = 1024


class LookupPool:
    """Looks up names in at most `threads` threads, and caches nothing."""

    def __init__(self, threads: int = MAX_LOOKUPS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="dns")

    async def lookup(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> list[AddressInfo]:
        """The addresses of `host`, at least one; an IP address is its own. Raises OSError or UnicodeError."""
        try:
            return _literal(host, port)
        except ValueError:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, _getaddrinfo, host, port, family)

    def close(self) -> None:
        """Cancel the queued look-ups."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Resolver:
    """Caches the look-ups of a private pool; look-ups of the same name share one. For one event loop."""

    def __init__(self, ttl: float = CACHE_TTL) -> None:
        self._pool = LookupPool()
        self._ttl = ttl
        self._cache: dict[tuple[str, int], tuple[float, list[AddressInfo]]] = {}
        self._pending: dict[tuple[str, int], asyncio.Task[list[AddressInfo]]] = {}

    async def resolve(self, host: str, port: int) -> list[AddressInfo]:
        """The addresses of `host`, at least one. Raises OSError or UnicodeError."""
        key = host, port
        now = asyncio.get_running_loop().time()
        expires, addresses = self._cache.get(key, (now, []))
        if expires > now:
            return addresses
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = asyncio.create_task(self._fill(key))
            pending.add_done_callback(partial(self._done, key))
        return await asyncio.shield(pending)  # one caller's cancellation is not the others'

    async def _fill(self, key: tuple[str, int]) -> list[AddressInfo]:
        addresses = await self._pool.lookup(*key)
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        self._cache[key] = asyncio.get_running_loop().time() + self._ttl, addresses
        return addresses

    def _done(self, key: tuple[str, int], task: asyncio.Task[list[AddressInfo]]) -> None:
        del self._pending[key]
        if not task.cancelled():
            task.exception()  # retrieved, also where every caller was cancelled

    async def aclose(self) -> None:
        """Cancel what is under way."""
        pending = list(self._pending.values())
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        self._pool.close()


def _literal(host: str, port: int) -> list[AddressInfo]:
    """The address that `host` writes. Raises ValueError for a name."""
    address = ip_address(host)
    if address.version == 4:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
    scope = int(address.scope_id or 0)  # a ValueError for an interface's name, which getaddrinfo knows
    socket_address = (host.partition("%")[0], port, 0, scope)
    return [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", socket_address)]


def _getaddrinfo(host: str, port: int, family: int) -> list[AddressInfo]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        (*rest, (str(address[0]), *address[1:]))  # type: ignore[misc]  # without IPv6, addresses could be bytes
        for *rest, address in found
    ]
