"""Which addresses of the network are which: public, private, or special ones that nobody should be sent to.

Knows no Django: the gateway's webhooks and the models' sources both ask here.
"""

import ipaddress
from enum import Enum
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
# What tells machines their secrets though it is not link-local: Azure, Alibaba, Oracle, AWS, Google.
SERVERS_OF_CLOUDS: Final = frozenset(
    ipaddress.ip_address(one)
    for one in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)


class Standing(Enum):
    """PRIVATE holds loopback too; SPECIAL is link-local (cloud metadata), multicast and the like."""

    PUBLIC = "public"
    PRIVATE = "private"
    SPECIAL = "special"


def standing(address: Address) -> Standing:
    inner = _inner(address)
    if inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in SERVERS_OF_CLOUDS:
        return Standing.SPECIAL
    return Standing.PUBLIC if inner.is_global else Standing.PRIVATE


def literal(host: str) -> Address | None:
    """The address that is written instead of a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)
