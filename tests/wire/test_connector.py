"""Names, addresses and the tunnels of proxies."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import httpx
import pytest

from server.config.model import Fetch
from server.errors import InvalidRequest
from server.media.fetcher import Fetcher
from server.wire.connector import Connector, Peer, Proxy
from server.wire.resolver import MAX_LOOKUPS, LookupPool, Resolver
from tests.wire.test_transport import OK, replying, serving

TIMEOUT = 5.0  # seconds


class Names:
    """getaddrinfo with some names: each leads to its addresses, or blocks until `release`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        self.lookups: list[str] = []
        self.release = threading.Event()
        self._started = threading.Semaphore(0)
        monkeypatch.setattr(socket, "getaddrinfo", self)

    async def started(self, count: int) -> None:
        """Wait until `count` more look-ups have started."""
        for _ in range(count):
            assert await asyncio.to_thread(self._started.acquire, timeout=TIMEOUT)

    def __call__(self, host: str, port: int, *_: Any, **__: Any) -> Any:
        self.lookups.append(host)
        self._started.release()
        if host.startswith("slow"):
            self.release.wait(TIMEOUT)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.names[host]
        ]


async def test_addresses_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, api_test=["127.0.0.1"])
    resolver = Resolver()
    for _ in range(2):
        [(*_, address)] = await resolver.resolve("api.test", 443)
        assert address == ("127.0.0.1", 443)
    assert names.lookups == ["api.test"]
    await resolver.aclose()


async def test_addresses_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, api_test=["127.0.0.1"])
    resolver = Resolver(ttl=0.0)
    for _ in range(2):
        await resolver.resolve("api.test", 443)
    assert names.lookups == ["api.test", "api.test"]
    await resolver.aclose()


async def test_failures_are_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    resolver = Resolver()
    with pytest.raises(OSError, match="not known"):
        await resolver.resolve("api.test", 443)
    names.names["api.test"] = ["127.0.0.1"]
    assert await resolver.resolve("api.test", 443)
    await resolver.aclose()


async def test_calls_at_once_share_a_lookup_that_outlives_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, slow_test=["127.0.0.1"])
    resolver = Resolver()
    first, second = (asyncio.create_task(resolver.resolve("slow.test", 443)) for _ in range(2))
    await names.started(1)
    first.cancel()
    names.release.set()
    assert await asyncio.wait_for(second, TIMEOUT)
    assert names.lookups == ["slow.test"]
    assert first.cancelled()
    await resolver.aclose()


async def test_closing_gives_up_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    resolver = Resolver()
    waiting = [asyncio.create_task(resolver.resolve(f"slow{n}.test", 443)) for n in range(2 * MAX_LOOKUPS)]
    await names.started(MAX_LOOKUPS)
    await resolver.aclose()
    assert all(task.cancelled() for task in await _ended(waiting))
    names.release.set()
    assert len(names.lookups) == MAX_LOOKUPS


async def _ended(tasks: list[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    await asyncio.wait(tasks, timeout=TIMEOUT)
    return tasks


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", ("127.0.0.1", 80)), ("::1", ("::1", 80, 0, 0)), ("fe80::1%3", ("fe80::1", 80, 0, 3))],
)
async def test_an_address_is_not_looked_up(host: str, address: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    [(*_, found)] = await LookupPool().lookup(host, 80)
    assert found == address
    assert not names.lookups


async def test_callers_urls_do_not_keep_providers_from_being_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, api_test=["127.0.0.1"])
    fetcher = Fetcher(Fetch(timeout=TIMEOUT))
    fetches = [asyncio.create_task(fetcher(f"https://slow{n}.test/")) for n in range(4 * MAX_LOOKUPS)]
    await names.started(MAX_LOOKUPS)
    async with serving(replying(OK)) as (transport, server):
        url = server.url.replace("127.0.0.1", "api.test")
        response = await transport.send("POST", url, {}, b"{}", 1.0)
        assert response.status == 200
        await response.body.aclose()
    names.release.set()
    errors = await asyncio.gather(*fetches, return_exceptions=True)
    assert all(isinstance(error, InvalidRequest) for error in errors)


async def test_a_lookup_counts_as_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    connector = Connector()
    with pytest.raises(httpx.ConnectTimeout, match=r"slow\.test:443 in 0\.05 s"):
        await connector.connect(Peer("slow.test", 443, True), None, 0.05)
    names.release.set()
    await connector.aclose()


@pytest.mark.parametrize("host", ["none.test", "x" * 64 + ".test"])
async def test_a_name_that_does_not_resolve(host: str) -> None:
    connector = Connector()
    with pytest.raises(httpx.ConnectError, match=f"cannot connect to {host}:443"):
        await connector.connect(Peer(host, 443, True), None, TIMEOUT)
    await connector.aclose()


async def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, api_test=["127.0.0.2", "127.0.0.1"])
    async with serving(replying(OK)) as (transport, server):  # on 127.0.0.1 alone
        response = await transport.send("POST", server.url.replace("127.0.0.1", "api.test"), {}, b"{}", TIMEOUT)
        assert response.status == 200
        await response.body.aclose()


@pytest.mark.parametrize(
    ("address", "proxy"),
    [
        ("http://p.test:3128", Proxy(Peer("p.test", 3128, False), b"")),
        ("https://p.test", Proxy(Peer("p.test", 443, True), b"")),
        ("http://[::1]:3128", Proxy(Peer("::1", 3128, False), b"")),
        ("http://a%40b:c%3Ad@p.test", Proxy(Peer("p.test", 80, False), b"Basic YUBiOmM6ZA==")),
        ("http://user@p.test", Proxy(Peer("p.test", 80, False), b"Basic dXNlcjo=")),
    ],
)
def test_the_urls_of_proxies(address: str, proxy: Proxy) -> None:
    assert Proxy.of(address) == proxy


@pytest.mark.parametrize("address", ["socks5://p.test:1080", "http://", "p.test"])
def test_urls_of_no_proxy(address: str) -> None:
    with pytest.raises(ValueError, match="neither an http nor an https URL"):
        Proxy.of(address)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "refused the tunnel with status 502"),
        (b"SSH-2.0-x\r\n\r\n", "cannot be read"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 200", "closed the connection"),
    ],
)
async def test_a_proxy_without_a_tunnel(reply: bytes, reason: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    connector = Connector()
    proxy = Proxy(Peer("127.0.0.1", listener.sockets[0].getsockname()[1], False), b"")
    with pytest.raises(httpx.ProxyError, match=reason):
        await connector.connect(Peer("api.test", 443, True), proxy, TIMEOUT)
    await connector.aclose()
    listener.close()
