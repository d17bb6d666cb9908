"""Where a webhook may be told: at a public address, resolved once, looked at, and connected to as it was."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import httpx

LONGEST = 2000
NAT64 = ipaddress.ip_network("64:ff9b::/96")
SERVERS_OF_CLOUDS = {ipaddress.ip_address("168.63.129.16")}  # tells machines their secrets, at a public address

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(Exception):
    """This address is not one that webhooks are sent to; the text says why."""


class Unresolved(Exception):
    """The name has no address now."""


def checked(url: str, *, private: bool) -> httpx.URL:
    """A webhook's address, if it can be one. Raises Refused. A name is looked up only when it is told."""
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise Refused("It is no URL.") from None
    if len(url) > LONGEST:
        raise Refused(f"It has more than {LONGEST} characters.")
    if found.scheme not in ("http", "https") or not found.host:
        raise Refused("It must begin with https:// or http:// and name a host.")
    if found.port is not None and not 0 < found.port < 65536:
        raise Refused("Its port must be between 1 and 65535.")
    if found.userinfo:
        raise Refused("It must hold no user name and no password.")
    literal = _literal(found.host)
    if literal is not None:
        refuse(literal, private=private)
    return found


async def resolved(url: httpx.URL, *, private: bool) -> list[str]:
    """The addresses of its host. Raises Refused if any is not allowed, and Unresolved."""
    port = url.port or (443 if url.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    try:
        rows = await loop.getaddrinfo(url.raw_host.decode("ascii"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:  # the latter for labels that are none
        why = problem.strerror if isinstance(problem, OSError) else "it is no name of a host"
        raise Unresolved(f"The name {url.host[:100]} can't be resolved: {why}.") from None
    found = [str(row[4][0]) for row in rows]
    for one in found:
        refuse(ipaddress.ip_address(one), private=private)
    return list(dict.fromkeys(found))


def refuse(address: Address, *, private: bool) -> None:
    """Raises Refused for what is not a public address; `private` lets private and loopback ones pass."""
    inner = _inner(address)
    if inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in SERVERS_OF_CLOUDS:
        raise Refused(f"Webhooks are never sent to {address}, which is link-local or another special address.")
    if not inner.is_global and not private:
        raise Refused(f"{address} is a private address, to which webhooks are not sent here.")


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
