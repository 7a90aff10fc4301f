"""The transport against scripted servers on loopback."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from server.wire.transport import Transport, proxies

#: Seconds after which a waiting test fails.
DEADLINE = 5.0

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection:
    """One accepted connection, as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        #: Head and body of each request so far.
        self.requests: list[tuple[str, bytes]] = []

    async def request(self) -> str:
        """The head of the next request, after its body was read too."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
        body = await self.reader.readexactly(int(lengths[0].split(":")[1])) if lengths else b""
        self.requests.append((head, body))
        return head

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def closed(self) -> None:
        """Wait until the other side has closed its socket."""
        with suppress(ConnectionError):
            assert await self.reader.read() == b""

    def reset(self) -> None:
        """Break the connection, so that the other side sees a reset."""
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


Script = Callable[[Connection], Awaitable[None]]


class Server:
    """Runs the script on every connection, then closes it. `check` raises the failed assertions of scripts."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.url = ""
        self.connections: list[Connection] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        connection = Connection(reader, writer)
        self.connections.append(connection)
        try:
            await self._script(connection)
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left between two requests, or the test is over
        finally:
            writer.close()

    async def check(self) -> None:
        """Wait until every script has ended."""
        await asyncio.wait_for(asyncio.gather(*self.tasks), DEADLINE)


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[tuple[Transport, Server]]:
    """A server, and a transport to call it with."""
    server = Server(script)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    transport = Transport()
    try:
        async with asyncio.timeout(DEADLINE):
            yield transport, server
    finally:
        await transport.aclose()
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)


def post(url: str, content: bytes = b"{}", **more: Any) -> httpx.Request:
    return httpx.Request("POST", url, content=content, **more)


def stream_of(response: httpx.Response) -> AsyncIterator[bytes]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return aiter(response.stream)


async def body_of(response: httpx.Response) -> bytes:
    try:
        return b"".join([data async for data in stream_of(response)])
    finally:
        await response.aclose()


def replying(*answers: bytes) -> Script:
    """One response per request, on one connection."""

    async def script(connection: Connection) -> None:
        for answer in answers:
            await connection.request()
            await connection.send(answer)
        await connection.closed()

    return script


# Requests


async def test_the_request_is_sent_as_it_is() -> None:
    async with serving(replying(OK)) as (transport, server):
        request = post(server.url, b'{"x": 1}', headers={"Authorization": "Bearer k", "x-twice": "a"})
        response = await transport.handle_async_request(request)
        assert await body_of(response) == b"ok"
    [(head, body)] = server.connections[0].requests
    assert body == b'{"x": 1}'
    first, *lines = head.strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert first == "POST /v1 HTTP/1.1"
    assert len(headers) == len(lines)  # none twice
    assert headers["authorization"] == "bearer k"
    assert headers["content-length"] == "8"
    assert headers["host"] == server.url.split("/")[2]
    assert headers["user-agent"] == "lmchat"


@pytest.mark.parametrize(
    "target",
    [
        "/model/a%3Ab%2Fc/converse-stream",
        "/model/a%253Ab/converse",
        "/v1/chat/completions?api-version=2024-10-21",
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        "/a%20b?c=%C3%A4&d=a%2Bb",
    ],
)
async def test_urls_stay_as_they_were_written(target: str) -> None:
    async with serving(replying(OK)) as (transport, server):
        await body_of(await transport.handle_async_request(post(server.url.removesuffix("/v1") + target)))
    assert server.connections[0].requests[0][0].startswith(f"POST {target} HTTP/1.1\r\n")


async def test_a_get_has_no_body() -> None:
    async with serving(replying(OK)) as (transport, server):
        await body_of(await transport.handle_async_request(httpx.Request("GET", server.url)))
    [(head, body)] = server.connections[0].requests
    assert head.startswith("GET /v1 HTTP/1.1\r\n")
    assert "content-length" not in head.lower()
    assert body == b""


# Responses


@pytest.mark.parametrize(
    ("answer", "status", "headers", "body"),
    [
        pytest.param(OK, 200, {"content-length": "2"}, b"ok", id="a length"),
        pytest.param(CHUNKED + piece(b"a") + piece(b"b") + b"0\r\n\r\n", 200, {}, b"ab", id="chunked"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, {}, b"", id="nothing"),
        pytest.param(
            b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nx-name: z\xc3\xbcrich\r\ncontent-length: 0\r\n\r\n",
            429,
            {"retry-after": "7", "x-name": "zürich"},
            b"",
            id="an error",
        ),
        pytest.param(
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            302,
            {"location": "http://127.0.0.1:1/"},
            b"",
            id="a redirect, not followed",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b"
            % (len(gzip.compress(b"ok", mtime=0)), gzip.compress(b"ok", mtime=0)),
            200,
            {},
            b"ok",
            id="compressed",
        ),
    ],
)
async def test_answers(answer: bytes, status: int, headers: dict[str, str], body: bytes) -> None:
    async with serving(replying(answer)) as (transport, server):
        response = await transport.handle_async_request(post(server.url))
        assert response.status_code == status
        assert headers.items() <= dict(response.headers).items()
        assert await body_of(response) == body


async def test_an_answer_that_ends_with_its_connection() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end")

    async with serving(script) as (transport, server):
        assert await call(transport, server.url) == b"until the end"


async def test_reads_arrive_one_by_one() -> None:
    seen = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED)
        for number in range(5):
            await connection.send(piece(b"data: %d\n\n" % number))
            await seen.wait()
            seen.clear()
        await connection.send(b"0\r\n\r\n")
        await connection.closed()

    async with serving(script) as (transport, server):
        response = await transport.handle_async_request(post(server.url))
        reads = stream_of(response)
        for number in range(5):  # the next is sent only when this one was read
            assert await anext(reads) == b"data: %d\n\n" % number
            seen.set()
        with pytest.raises(StopAsyncIteration):
            await anext(reads)
        await response.aclose()


async def test_a_large_answer_is_whole() -> None:
    large = bytes(range(256)) * 20_000
    async with serving(replying(CHUNKED + piece(large) + b"0\r\n\r\n")) as (transport, server):
        assert await call(transport, server.url) == large


async def test_a_large_request_is_whole_and_its_connection_used_again() -> None:
    large = bytes(range(256)) * 20_000
    async with serving(replying(OK, OK)) as (transport, server):
        for body in (large, b"{}"):
            assert await body_of(await transport.handle_async_request(post(server.url, body))) == b"ok"
        [connection] = server.connections
        assert [body for _, body in connection.requests] == [large, b"{}"]


async def test_an_answer_before_the_end_of_the_request() -> None:
    """The response is returned; the connection, in the middle of a request, serves no other."""

    async def script(connection: Connection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.send(OK.replace(b"200 OK", b"413 Too Large"))
        with suppress(ConnectionError):
            while await connection.reader.read(2**16):
                pass

    async with serving(script) as (transport, server):
        for _ in range(2):
            response = await transport.handle_async_request(post(server.url, bytes(2**26)))
            assert response.status_code == 413
            assert await body_of(response) == b"ok"
        assert len(server.connections) == 2
        await server.check()


# Connections


async def test_a_connection_is_used_again() -> None:
    async with serving(replying(OK, CHUNKED + piece(b"a") + b"0\r\n\r\n", OK)) as (transport, server):
        for expected in (b"ok", b"a", b"ok"):
            assert await call(transport, server.url) == expected
        assert len(server.connections) == 1
        assert len(server.connections[0].requests) == 3


async def test_a_connection_that_its_server_closed_is_not_used_again() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(OK)

    async with serving(script) as (transport, server):
        for count in (1, 2):
            assert await call(transport, server.url) == b"ok"
            [origin] = transport._origins.values()
            [(pooled, _)] = origin.idle
            await pooled.closed
            assert len(server.connections) == count


async def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(replying(OK)) as (transport, server):
        assert await call(transport, server.url) == b"ok"
        monkeypatch.setattr("server.wire.transport.IDLE_TIMEOUT", -1.0)
        assert await call(transport, server.url) == b"ok"
        await asyncio.wait_for(server.tasks[0], DEADLINE)
        assert len(server.connections) == 2


async def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(replying(OK)) as (transport, server):
        assert await call(transport, server.url) == b"ok"
        transport._sweep()
        assert not server.tasks[0].done()
        assert len(next(iter(transport._origins.values())).idle) == 1
        monkeypatch.setattr("server.wire.transport.IDLE_TIMEOUT", -1.0)
        transport._sweep()
        await server.check()
        assert transport._sweeper is None


async def test_cached_urls_are_bounded() -> None:
    async with serving(replying(*[OK] * 30)) as (transport, server):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("server.wire.transport.MAX_TARGETS", 10)
            for number in range(30):
                assert await call(transport, f"{server.url}/{number}") == b"ok"
        assert len(transport._targets) <= 10
        assert len(server.connections) == 1


async def test_cookies_are_not_kept() -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b\r\n\r\n")
    async with serving(replying(answer, OK)) as (transport, server):
        for _ in range(2):
            await call(transport, server.url)
        assert "cookie" not in server.connections[0].requests[1][0].lower()


async def test_cancelling_before_the_headers_closes_the_socket() -> None:
    arrived = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        arrived.set()
        await connection.closed()

    async with serving(script) as (transport, server):
        call = asyncio.create_task(transport.handle_async_request(post(server.url)))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.check()


@pytest.mark.parametrize("read", [0, 1])
async def test_closing_a_response_before_its_end_closes_the_socket(read: int) -> None:
    async def script(connection: Connection) -> None:
        if len(server.connections) > 1:
            await replying(OK)(connection)
            return
        await connection.request()
        await connection.send(CHUNKED + piece(b"data: 1\n\n"))
        await connection.closed()

    async with serving(script) as (transport, server):
        response = await transport.handle_async_request(post(server.url))
        reads = stream_of(response)
        for _ in range(read):
            await anext(reads)
        await response.aclose()
        await server.check()
        assert await call(transport, server.url) == b"ok"
        assert len(server.connections) == 2


async def test_cancelling_a_read_leaves_the_response_to_be_closed() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + piece(b"data: 1\n\n"))
        await connection.closed()

    async with serving(script) as (transport, server):
        response = await transport.handle_async_request(post(server.url))
        reads = stream_of(response)
        await anext(reads)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(reads)
        await response.aclose()
        await server.check()


async def test_closing_the_transport_closes_its_connections() -> None:
    async with serving(replying(OK)) as (transport, server):
        await call(transport, server.url)
        await transport.aclose()
        await server.check()


async def test_closing_an_unused_transport() -> None:
    await Transport().aclose()


# Failures


async def call(transport: Transport, url: str) -> bytes:
    return await body_of(await transport.handle_async_request(post(url)))


def sending(data: bytes, *, reset: bool = False) -> Script:
    """Send `data` and close."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(data)
        if reset:
            connection.reset()

    return script


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(sending(b""), httpx.ReadError, id="closed"),
        pytest.param(sending(b"", reset=True), httpx.ReadError, id="reset"),
        pytest.param(sending(b"HTTP/1.1 200 OK\r\nx:"), httpx.ReadError, id="closed within the headers"),
        pytest.param(sending(b"SMTP ready\r\n\r\n"), httpx.RemoteProtocolError, id="not HTTP"),
        pytest.param(sending(CHUNKED + b"zz\r\n"), httpx.RemoteProtocolError, id="not a chunk"),
        pytest.param(
            sending(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n"), httpx.RemoteProtocolError, id="bad header"
        ),
    ],
)
async def test_failures_before_the_answer(script: Script, expected: type[httpx.TransportError]) -> None:
    async with serving(script) as (transport, server):
        with pytest.raises(expected) as caught:
            await transport.handle_async_request(post(server.url))
    assert caught.type is expected
    assert str(caught.value)
    assert caught.value.request.url == server.url


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(sending(CHUNKED + piece(b"a")), httpx.ReadError, id="chunked, closed"),
        pytest.param(sending(CHUNKED + b"5\r\nab"), httpx.ReadError, id="closed within a chunk"),
        pytest.param(sending(OK[:-1]), httpx.ReadError, id="shorter than its length"),
        pytest.param(
            sending(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope"),
            httpx.ReadError,
            id="not gzip",
        ),
    ],
)
async def test_failures_within_the_answer(script: Script, expected: type[httpx.TransportError]) -> None:
    async with serving(script) as (transport, server):
        with pytest.raises(expected) as caught:
            await call(transport, server.url)
    assert caught.type is expected
    assert str(caught.value)


async def test_what_is_no_chunk_within_the_answer() -> None:
    """Detected at once, without waiting for the server to close, which this one does not."""
    read = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + piece(b"a"))
        await read.wait()
        await connection.send(b"zz\r\n")
        await connection.closed()

    async with serving(script) as (transport, server):
        response = await transport.handle_async_request(post(server.url))
        reads = stream_of(response)
        assert await anext(reads) == b"a"
        read.set()
        with pytest.raises(httpx.RemoteProtocolError, match="Invalid character in chunk size"):
            await anext(reads)
        await response.aclose()
        await server.check()


async def test_a_reset_within_the_answer() -> None:
    read = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + piece(b"a"))
        await read.wait()
        connection.reset()

    async with serving(script) as (transport, server):
        response = await transport.handle_async_request(post(server.url))
        reads = stream_of(response)
        assert await anext(reads) == b"a"
        read.set()
        with pytest.raises(httpx.ReadError):
            await anext(reads)
        await response.aclose()


async def test_a_refused_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        async with Transport() as transport:
            with pytest.raises(httpx.ConnectError):
                await transport.handle_async_request(post(f"http://127.0.0.1:{unused.getsockname()[1]}/"))


async def test_a_connection_that_takes_too_long() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for other in (first, second):  # the queue takes no more, so that the next one hangs
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        request = post(url, extensions={"timeout": {"connect": 0.05}})
        async with asyncio.timeout(DEADLINE), Transport() as transport:
            with pytest.raises(httpx.ConnectTimeout):
                await transport.handle_async_request(request)


async def test_another_scheme() -> None:
    async with Transport() as transport:
        with pytest.raises(httpx.LocalProtocolError):
            await transport.handle_async_request(post("ftp://127.0.0.1/"))


async def test_a_scheme_that_is_a_name_of_a_setting() -> None:
    async with Transport() as transport:
        with pytest.raises(httpx.LocalProtocolError):
            await transport.handle_async_request(post("no://127.0.0.1/v1"))


async def test_a_line_end_in_a_header() -> None:
    async with serving(replying(OK)) as (transport, server):
        with pytest.raises(httpx.LocalProtocolError):
            await transport.handle_async_request(post(server.url, headers={"x": "a\r\nb: c"}))
        assert not any(connection.requests for connection in server.connections)


# Proxies


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        ({"PATH": "/bin", "HTTP_PROXY": ""}, {}),
        ({"HTTP_PROXY": "http://p:1"}, {"http": "http://p:1"}),
        ({"https_proxy": "http://p:1"}, {"https": "http://p:1"}),
        ({"http_proxy": "http://low:1", "HTTP_PROXY": "http://high:1"}, {"http": "http://low:1"}),
        ({"NO_PROXY": "a,b"}, {"no": "a,b"}),
        ({"HTTPS_PROXY": "p:3128", "no_proxy": "*"}, {"https": "http://p:3128", "no": "*"}),
    ],
)
def test_the_variables_of_proxies(environ: dict[str, str], expected: dict[str, str]) -> None:
    assert proxies(environ) == expected


BOTH = {"http": "http://p:1", "https": "http://s:1"}


@pytest.mark.parametrize(
    ("settings", "url", "proxy"),
    [
        ({}, "https://api.example/", None),
        (BOTH, "http://api.example/", "http://p:1"),
        (BOTH, "https://api.example/", "http://s:1"),
        ({"http": "http://p:1"}, "https://api.example/", None),
        (BOTH, "http://127.0.0.1:8080/v1", None),
        (BOTH, "http://localhost:8080/v1", None),
        (BOTH, "http://LOCALHOST/v1", None),
        (BOTH, "http://[::1]:8080/v1", None),
        (BOTH | {"no": "api.example"}, "https://api.example/", None),
        (BOTH | {"no": "example"}, "https://api.example/", None),
        (BOTH | {"no": ".example"}, "https://api.example/", None),
        (BOTH | {"no": " other , api.example "}, "https://api.example/", None),
        (BOTH | {"no": "*"}, "https://api.example/", None),
        (BOTH | {"no": "ample"}, "https://api.example/", "http://s:1"),
        (BOTH | {"no": "api.example.org"}, "https://api.example/", "http://s:1"),
    ],
)
def test_who_is_reached_through_a_proxy(settings: dict[str, str], url: str, proxy: str | None) -> None:
    assert Transport(settings)._proxy(httpx.URL(url)) == proxy


async def test_a_call_through_a_proxy() -> None:
    async with serving(replying(OK)) as (_, server), Transport({"http": server.url[:-3]}) as transport:
        assert await call(transport, "http://api.example/v1/chat?x=%3A") == b"ok"
    head, _ = server.connections[0].requests[0]
    assert head.startswith("POST http://api.example/v1/chat?x=%3A HTTP/1.1\r\n")
    assert "\r\nhost: api.example\r\n" in head.lower()


async def test_a_proxy_with_a_password_gets_it_from_the_first_call_on() -> None:
    async with serving(replying(OK, OK)) as (_, server):
        proxy = server.url[:-3].replace("//", "//user:pass@")
        async with Transport({"http": proxy}) as transport:
            for _ in range(2):
                assert await call(transport, "http://api.example/v1") == b"ok"
    for head, _ in server.connections[0].requests:
        assert head.lower().count("\r\nproxy-authorization: basic dxnlcjpwyxnz\r\n") == 1


async def test_a_proxy_that_refuses() -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    async with serving(replying(refusal)) as (_, server), Transport({"https": server.url[:-3]}) as transport:
        with pytest.raises(httpx.ProxyError, match="407"):
            await transport.handle_async_request(post("https://api.example/v1"))
    assert server.connections[0].requests[0][0].startswith("CONNECT api.example:443 HTTP/1.1\r\n")
