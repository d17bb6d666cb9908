"""Where a webhook may be told: at a public address, resolved once, looked at, and connected to as it was."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import httpx

from endpoints.addresses import Address, Standing, literal, standing

LONGEST = 2000


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
    if (written := literal(found.host)) is not None:
        refuse(written, private=private)
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
    found = standing(address)
    if found is Standing.SPECIAL:
        raise Refused(f"Webhooks are never sent to {address}, which is link-local or another special address.")
    if found is Standing.PRIVATE and not private:
        raise Refused(f"{address} is a private address, to which webhooks are not sent here.")
