"""Fetches what callers name by URL, for providers that want bytes. Nobody gets at our own network this way.

What is allowed is decided for the very address a socket is about to connect
to, at every redirect anew: whatever a name, a resolver or a server says, there
is no second look-up between the check and the connection. Public addresses
are those that IANA's registries do not set apart:
https://www.iana.org/assignments/iana-ipv4-special-registry/
https://www.iana.org/assignments/iana-ipv6-special-registry/

Nothing is shared between fetches: no connections, no cookies, no proxies, no
credentials. Failures say as little of a name that leads nowhere as of one that
leads to an address of ours.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from server.config.model import Fetch
from server.errors import InvalidRequest

_MOST_REDIRECTS = 3
_LONGEST_URL = 8192
_PORTS = frozenset({80, 443})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "user-agent": "lmchat",
    "accept": "image/*, application/pdf, text/*, audio/*;q=0.9, */*;q=0.1",
    "accept-encoding": "identity",
}
_UNREACHABLE = "The host cannot be reached on the public internet."

#: A URL of these characters is sent as it is written, since it may be signed.
_PLAIN = re.compile(r"[!#-;=?-~]+", re.ASCII)

_SPECIAL_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # carriers' NAT; Alibaba's metadata
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's wire server
            "169.254.0.0/16",  # link-local; metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; Oracle's metadata
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
#: All that is public is in here. Mapped IPv4, NAT64, unique local, link-local, multicast, loopback are not.
_GLOBAL_6 = IPv6Network("2000::/3")
_SPECIAL_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "3fff::/20",  # documentation
        ),
    )
)
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
#: Where clouds hand out credentials: an allowed network that holds one of them does not open it.
_METADATA = frozenset(
    map(
        ip_address,
        (
            "100.100.100.200",
            "168.63.129.16",
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "192.0.0.192",
            "fd00:ec2::23",
            "fd00:ec2::254",
            "fd20:ce::254",
        ),
    )
)


class Media(NamedTuple):
    """What was fetched: its media type, told by its bytes, in lower case and without parameters."""

    type: str
    data: bytes


class Fetcher:
    """`await fetcher(url)` gives what is at `url`.

    Raises InvalidRequest, without a path, with a reason for callers. `resolver` is for tests.
    """

    def __init__(self, settings: Fetch, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._allowed = _Allowed(settings.allow)
        self._resolver = resolver

    async def __call__(self, url: str) -> Media:
        """What is at `url`, after at most three redirects."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                here = _parse(url)
                for _ in range(_MOST_REDIRECTS + 1):
                    found = await self._get(here)
                    if isinstance(found, Media):
                        return found
                    here = found
        except TimeoutError:
            raise InvalidRequest(f"It could not be fetched within {self._settings.timeout:g} s.") from None
        raise InvalidRequest(f"More than {_MOST_REDIRECTS} redirects.")

    async def _get(self, url: URL) -> Media | URL:
        """What is there, or where the server says it is."""
        host, usual = url.host or "", url.scheme == "https" and url.port in _PORTS
        host_allowed = self._allowed.host(host)
        if not usual and not host_allowed and not self._allowed.networks:
            raise InvalidRequest("Only https: URLs on the usual port are fetched.")

        def connect(info: tuple[int, int, int, str, tuple[str, int]]) -> socket.socket:
            family, kind, protocol, _, address = info
            if not self._allowed.address(address[0], host_allowed=host_allowed, usual=usual):
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
        most = self._settings.max_bytes
        too_large = f"Larger than {most} bytes."
        if response.status != 200:
            raise InvalidRequest(f"The host answered with status {response.status}.")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise InvalidRequest("The host sent it compressed without being asked.")
        if (response.content_length or 0) > most:
            raise InvalidRequest(too_large)
        data = bytearray()
        while piece := await response.content.readany():
            data += piece
            if len(data) > most:
                raise InvalidRequest(too_large)
        if not data:
            raise InvalidRequest("There is nothing in it.")
        type_ = media_type(bytes(data), response.headers.get("content-type", ""))
        if not type_:
            raise InvalidRequest("Neither an image, a PDF, sound, nor text in UTF-8.")
        return Media(type_, bytes(data))


def _parse(url: str) -> URL:
    """An absolute URL without credentials."""
    if len(url) > _LONGEST_URL:
        raise InvalidRequest(f"Longer than {_LONGEST_URL} characters.")
    try:
        return _checked(URL(url, encoded=bool(_PLAIN.fullmatch(url))))
    except ValueError:
        raise InvalidRequest("Not a URL.") from None


def _redirected(url: URL, location: str) -> URL:
    if not location:
        raise InvalidRequest("The host redirects to nowhere.")
    return _checked(url.join(URL(location, encoded=bool(_PLAIN.fullmatch(location)))))


def _checked(url: URL) -> URL:
    if url.scheme not in ("http", "https"):
        raise InvalidRequest("Only https: URLs are fetched.")
    if not url.host or url.port is None:
        raise InvalidRequest("Not a URL.")
    if url.user is not None or url.password is not None:
        raise InvalidRequest("A URL with a user or a password in it is not fetched.")
    return url


# Addresses


class _Allowed:
    """The allow list, and what is allowed without it."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.networks: list[IPv4Network | IPv6Network] = []
        self._hosts: set[str] = set()
        self._domains: list[str] = []
        for entry in entries:
            try:
                self.networks.append(ip_network(entry))
            except ValueError:
                name = entry.lower().removesuffix(".")
                if name.startswith("*."):
                    self._domains.append(name[1:])
                else:
                    self._hosts.add(name)

    def host(self, name: str) -> bool:
        """Whether the list names this host."""
        name = name.lower().removesuffix(".")
        return name in self._hosts or name.endswith(tuple(self._domains))

    def address(self, text: str, *, host_allowed: bool, usual: bool) -> bool:
        """Whether to connect to `text`. `usual`: by https on its own port."""
        try:
            address = ip_address(text)
        except ValueError:
            return False
        forms = {address, embedded(address) or address}
        listed = [net for net in self.networks if any(form in net for form in forms)]
        if forms & _METADATA:
            return any(net.num_addresses == 1 for net in listed)
        return bool(listed) or host_allowed or (usual and is_public(address))


def embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, 6to4 or NAT64."""
    if isinstance(address, IPv4Address):
        return None
    if any(address in net for net in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether `address` is one of the public internet's own: nothing special, nothing translated."""
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _SPECIAL_4)
    return address in _GLOBAL_6 and not any(address in net for net in _SPECIAL_6)


# Media types

#: What files begin with.
_MAGIC: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), type_)
    for pattern, type_ in (
        (rb"\x89PNG\r\n\x1a\n", "image/png"),
        (rb"\xff\xd8\xff", "image/jpeg"),
        (rb"GIF8[79]a", "image/gif"),
        (rb"RIFF.{4}WEBP", "image/webp"),
        (rb"BM.{4}\0\0\0\0", "image/bmp"),
        (rb"II\*\0|MM\0\*", "image/tiff"),
        (rb".{4}ftypavi[fs]", "image/avif"),
        (rb".{4}ftyp(hei[cxms]|hev[cx])", "image/heic"),
        (rb".{4}ftyp(mif1|msf1)", "image/heif"),
        (rb".{4}ftypM4[AB] ", "audio/mp4"),
        (rb"(\xef\xbb\xbf)?\s*%PDF-", "application/pdf"),
        (rb"RIFF.{4}WAVE", "audio/wav"),
        (rb"ID3", "audio/mpeg"),
        (rb"\xff[\xf0\xf1\xf8\xf9]", "audio/aac"),
        (rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "audio/mpeg"),
        (rb"OggS", "audio/ogg"),
        (rb"fLaC", "audio/flac"),
        (rb"FORM.{4}AIF[FC]", "audio/aiff"),
    )
)
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_TEXT = re.compile(r"text/[a-z0-9.+-]+")


def media_type(data: bytes, header: str) -> str:
    """The type that `data` shows; empty where it is of no kind that is fetched.

    `header` is what the server calls it: it says what kind of text a text is, and nothing else.
    """
    for pattern, type_ in _MAGIC:
        if pattern.match(data):
            return type_
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    if _CONTROL.search(text):
        return ""
    said = header.partition(";")[0].strip().lower()
    return said if _TEXT.fullmatch(said) else "text/plain"
