"""The transport over TLS, and through a proxy's tunnel to it."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.wire.exchange import Response
from server.wire.transport import Transport
from tests.wire.test_transport import CHUNKED, DEADLINE, OK, Server, piece, replying

#: Not a loopback name, which would bypass the proxy; it is not resolved.
HOST = "api.test"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of HOST and localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lmchat test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(HOST), x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    plain = serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(encoded + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def trust(certificate: Path) -> ssl.SSLContext:
    """A context that trusts it."""
    return ssl.create_default_context(cafile=str(certificate))


@asynccontextmanager
async def serving(server: Server, certificate: Path) -> AsyncIterator[int]:
    """`server` behind TLS; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=context)
    try:
        async with asyncio.timeout(DEADLINE):
            yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)


async def post(transport: Transport, url: str, body: bytes = b"{}") -> Response:
    return await transport.send("POST", url, {"x-a": "1"}, body, 5.0)


async def whole(response: Response) -> bytes:
    try:
        return b"".join([data async for data in response.body])
    finally:
        await response.body.aclose()


async def test_calls_share_a_connection(certificate: Path, trust: ssl.SSLContext) -> None:
    server = Server(replying(OK, CHUNKED + piece(b"a") + b"0\r\n\r\n", OK))
    async with serving(server, certificate) as port, Transport(tls=trust) as transport:
        url = f"https://localhost:{port}/v1"
        large = bytes(2**22)
        for body, expected in ((b"{}", b"ok"), (large, b"a"), (b"{}", b"ok")):
            assert await whole(await post(transport, url, body)) == expected
        assert len(server.connections) == 1
        assert [len(body) for _, body in server.connections[0].requests] == [2, 2**22, 2]


async def test_closing_before_the_end_closes_the_connection(certificate: Path, trust: ssl.SSLContext) -> None:
    left = asyncio.Event()

    async def script(connection: object) -> None:
        assert server.connections
        [here] = server.connections
        await here.request()
        await here.send(CHUNKED + piece(b"a"))
        with suppress(ConnectionError):
            assert await here.reader.read() == b""
        left.set()

    server = Server(script)
    async with serving(server, certificate) as port, Transport(tls=trust) as transport:
        response = await post(transport, f"https://localhost:{port}/v1")
        assert await anext(response.body) == b"a"
        await response.body.aclose()
        await left.wait()


async def test_an_untrusted_certificate(certificate: Path) -> None:
    server = Server(replying(OK))
    async with serving(server, certificate) as port, Transport() as transport:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await post(transport, f"https://localhost:{port}/v1")


async def test_through_the_tunnel_of_a_proxy(certificate: Path, trust: ssl.SSLContext) -> None:
    server = Server(replying(OK, OK))
    proxied: list[bytes] = []
    tunnels: list[asyncio.Task[None] | None] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                writer.write(data)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnels.append(asyncio.current_task())
        proxied.append(await reader.readuntil(b"\r\n\r\n"))
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    async with serving(server, certificate) as port:
        proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        address = f"http://user:pass@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        async with Transport({"https": address}, trust) as transport:
            for _ in range(2):
                assert await whole(await post(transport, f"https://{HOST}/v1?x=1")) == b"ok"
        proxy.close()
        await asyncio.gather(*filter(None, tunnels))
    [head] = proxied
    assert head.startswith(b"CONNECT api.test:443 HTTP/1.1\r\n")
    assert b"proxy-authorization: basic dxnlcjpwyxnz" in head.lower()
    for tunneled, _ in server.connections[0].requests:
        assert tunneled.startswith("POST /v1?x=1 HTTP/1.1\r\n")
        assert "proxy-authorization" not in tunneled.lower()
