"""Which addresses may be connected to for a URL that a caller wrote. Pure.

Public addresses are those that IANA's registries do not set apart:
https://www.iana.org/assignments/iana-ipv4-special-registry/
https://www.iana.org/assignments/iana-ipv6-special-registry/
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

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
#: All public addresses. Mapped IPv4, NAT64, unique local, link-local, multicast and loopback are outside.
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
#: Metadata services, which hand out credentials: allowing a network that contains one does not allow it.
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


class AllowList:
    """The operator's exceptions: host names, `*.` at the front for all below one, addresses and networks."""

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

    def address(self, text: str, *, host_allowed: bool, standard: bool) -> bool:
        """Whether to connect to the IP address `text`.

        `host_allowed`: `host` is true of its name. `standard`: by https on one of its standard ports.
        """
        try:
            address = ip_address(text)
        except ValueError:
            return False
        forms = {address, embedded(address) or address}
        listed = [net for net in self.networks if any(form in net for form in forms)]
        if forms & _METADATA:
            return any(net.num_addresses == 1 for net in listed)
        return bool(listed) or host_allowed or (standard and is_public(address))


def embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, 6to4 or NAT64."""
    if isinstance(address, IPv4Address):
        return None
    if any(address in net for net in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether `address` is one of the public internet: not set apart, not a form of an IPv4 address."""
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _SPECIAL_4)
    return address in _GLOBAL_6 and not any(address in net for net in _SPECIAL_6)
