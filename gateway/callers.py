"""Where a call came from, as far as proxies in front can be believed."""

import ipaddress


def address_of(peer: str, forwarded: bytes | None, *, proxies: int) -> str:
    """The caller's address. `peer` is that of the connection; behind `proxies` trusted ones, each of which adds
    the address it was called from to X-Forwarded-For, it is so many places from that header's end."""
    if not proxies or not forwarded:
        return peer
    named = forwarded.decode("latin-1").split(",")[-proxies:][0].strip()
    try:
        return str(ipaddress.ip_address(named))
    except ValueError:
        return peer
