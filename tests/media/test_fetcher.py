"""Fetching by URL: refused URLs, messages, and the addresses connected to. The servers are on loopback."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ipaddress
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from server.config.load import load
from server.config.model import Fetch
from server.config.problems import ConfigError
from server.errors import InvalidRequest
from server.media.addresses import AllowList, embedded, is_public
from server.media.fetcher import Fetcher, Media
from server.media.mime import media_type

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
COMPRESSED = "The host sent it compressed without being asked."
NO_MEDIA = "Neither an image, a PDF, sound, nor text in UTF-8."
UNREACHABLE = "The host cannot be reached on the public internet."


def response(body: bytes = PNG, status: str = "200 OK", **headers: str) -> bytes:
    lines = {"content-length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
    head = "".join(f"{name}: {text}\r\n" for name, text in lines.items() if text)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def redirect(to: str, status: str = "302 Found") -> bytes:
    return response(b"", status, location=to)


class Server:
    """Answers every request with what `pages` has at its path; `seen` are the requests' heads."""

    def __init__(self, **pages: bytes) -> None:
        self.pages = pages
        self.seen: list[str] = []
        self.connections = 0
        self.port = 0
        self.requested, self.hold = asyncio.Event(), asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.seen.append(head)
            self.requested.set()
            name = head.split()[1].strip("/").partition("?")[0] or "index"
            writer.write(self.pages.get(name, response(b"no", "404 Not Found")))
            await writer.drain()
            if name.startswith("held"):
                await self.hold.wait()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def running(
        self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self, host, port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.hold.set()
            server.close()
            await server.wait_closed()


class Resolver(AbstractResolver):
    """Resolves each name to its lists of addresses in turn; the last one is repeated."""

    def __init__(self, **names: list[list[str]]) -> None:
        self._names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.looked_up: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.looked_up.append(host)
        answers = self._names.get(host.lower())
        if answers is None:
            raise OSError(None, "no such name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in (answers.pop(0) if len(answers) > 1 else answers[0])
        ]

    async def close(self) -> None:
        pass


def fetcher(*allow: str, resolver: AbstractResolver | None = None, **settings: Any) -> Fetcher:
    return Fetcher(Fetch(allow=allow, **settings), resolver or Resolver())


async def refusal(fetch: Callable[[str], Awaitable[Media]], url: str) -> str:
    with pytest.raises(InvalidRequest) as raised:
        await fetch(url)
    assert raised.value.param is None
    return raised.value.message


# Successful fetches


@pytest.mark.parametrize(
    ("page", "media"),
    [
        (response(), Media("image/png", PNG)),
        (response(content_type="text/html"), Media("image/png", PNG)),
        (response(b"a,b\n", content_type="text/csv; charset=utf-8"), Media("text/csv", b"a,b\n")),
        (response(b"{}", content_type="application/json"), Media("text/plain", b"{}")),
        (response(content_length=""), Media("image/png", PNG)),
        (
            response(b"9\r\n%PDF-1.7\n\r\n0\r\n\r\n", content_length="", transfer_encoding="chunked"),
            Media("application/pdf", b"%PDF-1.7\n"),
        ),
    ],
)
async def test_fetched_media(page: bytes, media: Media) -> None:
    async with Server(index=page).running() as server:
        assert await fetcher("127.0.0.0/8")(f"http://127.0.0.1:{server.port}/") == media


async def test_the_request() -> None:
    async with Server(**{"a%2Fb": response()}).running() as server:
        url = f"http://pets.test:{server.port}/a%2Fb?sig=%2B%3d+~%7E#part"
        resolver = Resolver(pets_test=[["127.0.0.1"]])
        await fetcher("pets.test", resolver=resolver)(url)
    (head,) = server.seen
    lines = head.lower().splitlines()
    assert head.startswith("GET /a%2Fb?sig=%2B%3d+~%7E HTTP/1.1\r\n")
    assert f"host: pets.test:{server.port}" in lines
    assert "accept-encoding: identity" in lines
    assert {line.partition(":")[0] for line in lines[1:] if line} == {
        "host", "user-agent", "accept", "accept-encoding", "connection",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (response(b"x" * 1001), "Larger than 1000 bytes."),
        (response(content_length="1001"), "Larger than 1000 bytes."),
        (response(b"x" * 5000, content_length=""), "Larger than 1000 bytes."),
        (response(b""), "There is nothing in it."),
        (response(status="404 Not Found"), "The host answered with status 404."),
        (response(status="206 Partial Content"), "The host answered with status 206."),
        (response(b"\x7fELF\x02\x01\x01\0", content_type="image/png"), NO_MEDIA),
        (response(gzip.compress(b"x"), content_encoding="gzip"), COMPRESSED),
        (response(content_length="500"), "The host broke off."),
        (b"SSH-2.0-OpenSSH_9\r\n", UNREACHABLE),
        (b"", UNREACHABLE),
        (redirect(""), "The host redirects to nowhere."),
        (redirect("ftp://pets.test/"), "Only https: URLs are fetched."),
        (redirect("file:///etc/passwd"), "Only https: URLs are fetched."),
        (redirect("https://user:word@pets.test/"), "A URL with a user or a password in it is not fetched."),
        (redirect("http://[::1"), UNREACHABLE),
        (redirect("http://localhost:22/"), UNREACHABLE),
    ],
)  # fmt: skip
async def test_refused_responses(page: bytes, message: str) -> None:
    async with Server(index=page).running() as server:
        fetch = fetcher("127.0.0.1", max_bytes=1000)
        assert await refusal(fetch, f"http://127.0.0.1:{server.port}/") == message


@pytest.mark.parametrize("page", ["held-head", "held-body"])
async def test_time_is_limited(page: str) -> None:
    pages = {"held-head": b"", "held-body": response(content_length="500")}
    async with Server(**pages).running() as server:
        fetch = fetcher("127.0.0.1", timeout=0.05)
        url = f"http://127.0.0.1:{server.port}/{page}"
        assert await refusal(fetch, url) == "It could not be fetched within 0.05 s."


async def test_a_cancelled_fetch_closes_its_connection() -> None:
    async with Server(**{"held": response(content_length="500")}).running() as server:
        task = asyncio.create_task(fetcher("127.0.0.1")(f"http://127.0.0.1:{server.port}/held"))
        await server.requested.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_certificates_are_checked() -> None:
    """A self-signed certificate is refused, also for hosts on the allow list; SNI has the host's name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pets.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pets.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write(certificate.public_bytes(Encoding.PEM) + secret)
        file.flush()
        context.load_cert_chain(file.name)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    server = Server(index=response())
    async with server.running(tls=context):
        fetch = fetcher("pets.test", resolver=Resolver(pets_test=[["127.0.0.1"]]))
        assert await refusal(fetch, f"https://pets.test:{server.port}/") == "The host's certificate is not valid."
    assert names == ["pets.test"]
    assert not server.seen


# URLs


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://pets.test/", "Only https: URLs on the usual port are fetched."),
        ("https://pets.test:8443/", "Only https: URLs on the usual port are fetched."),
        ("ftp://pets.test/", "Only https: URLs are fetched."),
        ("file:///etc/passwd", "Only https: URLs are fetched."),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "Only https: URLs are fetched."),
        ("pets.test/cat.png", "Only https: URLs are fetched."),
        ("//pets.test/cat.png", "Only https: URLs are fetched."),
        ("", "Only https: URLs are fetched."),
        ("https://", "Not a URL."),
        ("https:///cat.png", "Not a URL."),
        ("https://[::1/", "Not a URL."),
        ("https://pets.test:99999/", "Not a URL."),
        ("https://user@pets.test/", "A URL with a user or a password in it is not fetched."),
        ("https://user:word@pets.test/", "A URL with a user or a password in it is not fetched."),
        ("https://:word@pets.test/", "A URL with a user or a password in it is not fetched."),
        ("https://pets.test\\@127.0.0.1/", "Not a URL."),
        ("https://pets.test/" + "a" * 8192, "Longer than 8192 characters."),
        ("https://nowhere.test/", UNREACHABLE),
        ("HTTPS://Nowhere.Test/", UNREACHABLE),
        ("https://pets.test/\r\nx: y", UNREACHABLE),
    ],
)
async def test_urls_that_are_refused(url: str, message: str) -> None:
    assert await refusal(fetcher(), url) == message


# Addresses

FORBIDDEN = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.1.2.3",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.0.1",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "223.255.255.1",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2a00:1450::1",
    "3ffe::1",
]


@pytest.mark.parametrize("address", FORBIDDEN)
async def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    """In the URL, and behind a name; the message is that for an unknown name."""
    assert not is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    resolver = Resolver(pets_test=[[address]])
    for url in (f"https://{host}/", "https://pets.test/"):
        assert await refusal(fetcher(resolver=resolver), url) == UNREACHABLE


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_public_ipv4_is_what_python_calls_global_at_most(address: ipaddress.IPv4Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_private, address.is_loopback))


@given(st.ip_addresses(v=6) | st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(ipaddress.IPv6Address))
def test_public_ipv6_is_what_python_calls_global_at_most(address: ipaddress.IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_link_local, address.is_site_local))
        assert embedded(address) is None


@given(st.ip_addresses(v=4), st.integers(0, 2**16 - 1))
def test_ipv4_in_ipv6_is_never_public(address: ipaddress.IPv4Address, rest: int) -> None:
    number = int(address)
    forms = (0xFFFF << 32 | number, 0x2002 << 112 | number << 80 | rest, 0x64FF9B << 96 | number)
    for form in map(ipaddress.IPv6Address, forms):
        assert embedded(form) == address
        assert not is_public(form)


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:7f00:1]", "①②⑦.0.0.1"],
)
async def test_loopback_by_any_other_name(host: str) -> None:
    """With the system's own resolver."""
    fetch = Fetcher(Fetch())
    assert await refusal(fetch, f"https://{host}/") in (UNREACHABLE, "Not a URL.")


async def test_of_many_addresses_only_the_public_are_tried() -> None:
    """127.0.0.2 stands for the public one: the name is allowed no other."""
    async with Server(index=response()).running("127.0.0.2") as good:
        bad = Server(index=response())
        async with bad.running("127.0.0.1", good.port):
            resolver = Resolver(pets_test=[["127.0.0.1", "127.0.0.2"]])
            fetch = fetcher("127.0.0.2", resolver=resolver)
            assert (await fetch(f"http://pets.test:{good.port}/")).data == PNG
    assert (good.connections, bad.connections) == (1, 0)


async def test_a_name_that_changes_its_address_is_caught() -> None:
    """DNS rebinding: a public address at the first look-up, a private one at the second."""
    async with Server(index=redirect("/again"), again=response()).running("127.0.0.2") as good:
        bad = Server(again=response())
        async with bad.running("127.0.0.1", good.port):
            resolver = Resolver(pets_test=[["127.0.0.2"], ["127.0.0.1"]])
            fetch = fetcher("127.0.0.2", resolver=resolver)
            assert await refusal(fetch, f"http://pets.test:{good.port}/") == UNREACHABLE
    assert resolver.looked_up == ["pets.test", "pets.test"]
    assert (good.connections, bad.connections) == (1, 0)


async def test_a_name_is_looked_up_once_for_each_connection() -> None:
    """The checked address is the one connected to, without a second look-up."""
    async with Server(index=response()).running() as server:
        resolver = Resolver(pets_test=[["127.0.0.1"], ["127.0.0.3"]])
        await fetcher("127.0.0.1", resolver=resolver)(f"http://pets.test:{server.port}/")
    assert resolver.looked_up == ["pets.test"]


# Redirects


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
async def test_redirects_are_followed(status: str) -> None:
    server = Server(index=redirect("/one", status), one=redirect("two?x=1", status), two=redirect("?y=2", status))
    async with server.running():
        base = f"http://127.0.0.1:{server.port}"
        fetch = fetcher("127.0.0.1")
        assert await refusal(fetch, f"{base}/") == "More than 3 redirects."
        server.pages["two"] = redirect(f"{base}/three", status)
        server.pages["three"] = response()
        assert (await fetch(f"{base}/")).type == "image/png"
    assert [head.split()[1] for head in server.seen[-4:]] == ["/", "/one", "/two?x=1", "/three"]


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.2:{port}/",
        "http://[::1]:{port}/",
        "http://0.0.0.0:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "http://inner.test:{port}/",
        "//127.0.0.2:{port}/",
    ],
)
async def test_refused_redirects(to: str) -> None:
    inner, outer = Server(index=response()), Server()
    async with inner.running("127.0.0.2"), outer.running():
        outer.pages["index"] = redirect(to.format(port=inner.port))
        fetch = fetcher("127.0.0.1", resolver=Resolver(inner_test=[["127.0.0.2"]]))
        assert await refusal(fetch, f"http://127.0.0.1:{outer.port}/") == UNREACHABLE
    assert inner.connections == 0


# The allow list


@pytest.mark.parametrize(
    ("allow", "host", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("127.0.0.1", "pets.test", True),
        ("10.0.0.0/8", "pets.test", False),
        ("pets.test", "pets.test", True),
        ("pets.test", "PETS.test", True),
        ("PETS.test.", "pets.test.", True),
        ("pets.test", "a.pets.test", False),
        ("*.pets.test", "a.pets.test", True),
        ("*.pets.test", "pets.test", False),
        ("*.pets.test", "spets.test", False),
        ("pets.test", "127.0.0.1", False),
        ("::1/128", "127.0.0.1", False),
        ("0.0.0.0/0", "127.0.0.1", True),
    ],
)
async def test_the_allow_list(allow: str, host: str, allowed: bool) -> None:
    names = ("pets_test", "a_pets_test", "spets_test")
    resolver = Resolver(**{name: [["127.0.0.1"]] for name in names}, pets_test_=[["127.0.0.1"]])
    resolver._names["pets.test."] = [["127.0.0.1"]]
    async with Server(index=response()).running() as server:
        fetch = fetcher(allow, resolver=resolver)
        url = f"http://{host}:{server.port}/"
        if allowed:
            assert (await fetch(url)).data == PNG
        else:
            await refusal(fetch, url)
            assert server.connections == 0


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254"]
)
def test_metadata_is_allowed_by_its_address_only(address: str) -> None:
    for allow in ("0.0.0.0/0", "::/0", "169.254.0.0/16", "fd00::/8", "meta.test"):
        allow_list = AllowList([allow])
        assert not allow_list.address(address, host_allowed=allow_list.host("meta.test"), standard=True)
    exact = AllowList(["169.254.169.254", "fd00:ec2::254"])
    assert exact.address(address, host_allowed=False, standard=False)


# Media types


@pytest.mark.parametrize(
    ("data", "header", "type_"),
    [
        (PNG, "", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/png", "image/jpeg"),
        (b"GIF89a", "", "image/gif"),
        (b"RIFF\1\2\3\4WEBPVP8 ", "", "image/webp"),
        (b"RIFF\1\2\3\4WAVEfmt ", "", "audio/wav"),
        (b"BM\1\2\3\4\0\0\0\0", "", "image/bmp"),
        (b"II*\0", "", "image/tiff"),
        (b"\0\0\0\x1cftypavif", "", "image/avif"),
        (b"\0\0\0\x1cftypheic", "", "image/heic"),
        (b"\0\0\0\x1cftypmif1", "", "image/heif"),
        (b"\0\0\0\x1cftypM4A ", "", "audio/mp4"),
        (b"%PDF-1.7", "text/html", "application/pdf"),
        (b"\n%PDF-1.7", "", "application/pdf"),
        (b"ID3\4", "", "audio/mpeg"),
        (b"\xff\xfb\x90", "", "audio/mpeg"),
        (b"\xff\xf1\x50", "", "audio/aac"),
        (b"OggS", "", "audio/ogg"),
        (b"fLaC", "", "audio/flac"),
        (b"FORM\1\2\3\4AIFF", "", "audio/aiff"),
        ("żółw".encode(), "", "text/plain"),
        (b"a,b", "Text/CSV; charset=utf-8", "text/csv"),
        (b"<svg/>", "image/svg+xml", "text/plain"),
        (b"a", "text/<script>", "text/plain"),
        (b"about %PDF-1.7", "text/plain", "text/plain"),
        (b"\x1b[1mbold\x1b[0m", "text/plain", "text/plain"),
        (b"a\0b", "text/plain", ""),
        (b"\xe9", "text/plain", ""),
        (b"\0\0\0\x1cftypisom", "video/mp4", ""),
        (b"PK\3\4\0\0\0\0\xff", "application/zip", ""),
    ],
)
def test_media_types_are_detected_from_bytes(data: bytes, header: str, type_: str) -> None:
    assert media_type(data, header) == type_


@given(st.binary(), st.text())
def test_any_bytes_have_a_media_type_that_is_fetched_or_none(data: bytes, header: str) -> None:
    type_ = media_type(data, header)
    assert type_ in ("", "application/pdf") or type_.startswith(("image/", "audio/", "text/"))


# Configuration


def read(tmp_path: Path, fetch: str) -> Fetch:
    path = tmp_path / "c.yaml"
    path.write_text(
        f"providers: {{a: {{type: openai}}}}\nmodels: {{m: {{endpoints: [{{provider: a, model: x}}]}}}}\n{fetch}"
    )
    return load(path, {}).fetch


def test_the_configuration(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Fetch() == Fetch(allow=(), max_bytes=20 * 1024 * 1024, timeout=10.0)
    text = (
        "fetch: {allow: [files.corp.example, '*.cdn', 10.1.0.0/16, 'fd00::1'], max_bytes: 1000, timeout: 500ms}\n"
    )
    settings = read(tmp_path, text)
    assert settings == Fetch(
        allow=("files.corp.example", "*.cdn", "10.1.0.0/16", "fd00::1"), max_bytes=1000, timeout=0.5
    )


@pytest.mark.parametrize(
    ("fetch", "problem"),
    [
        ("{alow: []}", 'fetch.alow: unknown key; did you mean "allow"?'),
        ("{max_bytes: 20MB}", 'fetch.max_bytes: expected a whole number of at least 1, found "20MB"'),
        ("{timeout: 10}", "fetch.timeout: expected a duration"),
        ("{allow: 10.0.0.0/8}", "fetch.allow: expected a list of texts, found text"),
        *(
            (f"{{allow: ['{entry}']}}", "fetch.allow: item 1 is no host, address or CIDR such as 10.1.0.0/16")
            for entry in ("https://a.example", "10.1.0.1/16", "300.1.1.1", "a b", "*", "a.*", "a:80", "")
        ),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, fetch: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, f"fetch: {fetch}\n")
    assert f"c.yaml:3: {problem}" in str(raised.value)
