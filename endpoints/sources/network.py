"""The way to a server whose address a person wrote: resolved once, looked at, and connected to as it was.

Metadata services of clouds are never reached, whatever a name, a redirect or a DNS answer says. An
operator's proxy (HTTPS_PROXY, NO_PROXY) is used where one is set; names are then resolved behind it. What a
server says is kept in memory up to a limit; what is streamed, such as a model's file, has none.
"""

import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable
from typing import Final
from urllib.request import getproxies, proxy_bypass

import httpx2

from endpoints.addresses import Standing, literal, standing
from endpoints.sources.base import SourceProblem

NONE_KEPT: Final = httpx2.Limits(max_keepalive_connections=0)  # a source may be forgotten at any time
MOST: Final = 64 << 20  # bytes of an answer that is read whole, many times what a listing of a model's files takes
PORTS: Final = {"https": 443, "http": 80, "ssh": 22}


class Unresolved(Exception):
    """The name has no address now; the text says why."""


def places(host: str, port: int, *, private: bool) -> list[str]:
    """The addresses of a host. Raises Unresolved, and SourceProblem if one of them is not to be reached."""
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:  # the latter for labels that are none
        raise Unresolved(problem.strerror if isinstance(problem, OSError) else "it is no host's name") from None
    found = list(dict.fromkeys(str(row[4][0]) for row in rows))
    for one in found:
        refuse(host, one, private=private)
    return found


def refuse(host: str, address: str, *, private: bool) -> None:
    """SourceProblem("address_refused") for an address that sources are not to reach."""
    found = standing(ipaddress.ip_address(address.partition("%")[0]))
    if found is Standing.SPECIAL:
        said = f"{host} is {address}, a link-local or other special address. Nothing is fetched from there."
        raise SourceProblem("address_refused", said, "url")
    if found is Standing.PRIVATE and not private:
        said = (
            f"{host} is {address}, a private address, and this console fetches from public ones only. "
            "Whoever runs it can allow private ones with SOURCES_ALLOW_PRIVATE=1."
        )
        raise SourceProblem("address_refused", said, "url")


def proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the operator's environment names for this host."""
    proxy = getproxies().get(scheme) or getproxies().get("all")
    return proxy if proxy and not proxy_bypass(host) else None


class Answer(httpx2.Response):
    """SourceProblem("too_long") when what is read whole, and not streamed, has no end."""

    def read(self) -> bytes:
        if not hasattr(self, "_content"):
            self._content = whole(self.iter_bytes(), self.url.host)
        return self._content


def whole(pieces: Iterable[bytes], server: str) -> bytes:
    """All of what a server says. SourceProblem("too_long") if that is more than any answer needs."""
    said = bytearray()
    for piece in pieces:
        said += piece
        require_end(len(said), server)
    return bytes(said)


def require_end(length: int, server: str) -> None:
    """SourceProblem("too_long") if a server said more than any answer needs."""
    if length > MOST:
        raise too_long(server)


def too_long(server: str) -> SourceProblem:
    """In words: its answer had no end."""
    said = (
        f"{server} answered a question with more than {MOST >> 20} MiB, and was not heard to the end: no "
        "list of a model's files is so long. Check the address, and give the place that holds the model alone."
    )
    return SourceProblem("too_long", said, "url")


class Guarded(httpx2.BaseTransport):
    """A connection pool for each host, so that no host's certificate vouches for another at the same address."""

    def __init__(self, *, private: bool) -> None:
        self.private = private
        self._pools: dict[tuple[str, str | None], httpx2.HTTPTransport] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        heard = self._heard(request)
        stream = heard.stream
        return Answer(heard.status_code, headers=heard.headers, stream=stream, extensions=heard.extensions)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _heard(self, request: httpx2.Request) -> httpx2.Response:
        host, scheme = request.url.host, request.url.scheme
        if proxy := proxy_for(scheme, host):
            if literal(host):
                refuse(host, host, private=self.private)
            return self._pool(host, proxy).handle_request(request)
        try:
            found = places(host, request.url.port or PORTS.get(scheme, 443), private=self.private)
        except Unresolved as problem:
            raise httpx2.ConnectError(f"the name {host} can't be resolved: {problem}", request=request) from None
        for place in found[:-1]:
            try:
                return self._pool(host, None).handle_request(_towards(place, request))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return self._pool(host, None).handle_request(_towards(found[-1], request))

    def _pool(self, host: str, proxy: str | None) -> httpx2.HTTPTransport:
        if (host, proxy) not in self._pools:
            trusted = _trusted(os.environ.get("SSL_CERT_FILE"))
            self._pools[host, proxy] = httpx2.HTTPTransport(verify=trusted, proxy=proxy, limits=NONE_KEPT)
        return self._pools[host, proxy]


def client(*, private: bool, timeout: float, follow_redirects: bool = True) -> httpx2.Client:
    """Asks with nothing of its own: no netrc, no cookies of others. After a redirect to another host the
    credentials stay behind."""
    return httpx2.Client(
        transport=Guarded(private=private), timeout=timeout, follow_redirects=follow_redirects, trust_env=False
    )


def unreachable(address: str, error: httpx2.HTTPError, field: str = "url") -> SourceProblem:
    """In words: nothing was heard from a server."""
    if isinstance(error, httpx2.TimeoutException):
        return SourceProblem("timeout", f"{address} didn't answer in time. Try again.", field, passing=True)
    reason = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason or "certificate" in reason.lower():
        return bad_certificate(address, field)
    said = f"{address} can't be reached from here ({reason}). Check the address, the network and the proxy."
    return SourceProblem("no_network", said, field, passing=True)


def bad_certificate(address: str, field: str = "url") -> SourceProblem:
    said = (
        f"{address} shows a certificate that isn't trusted here. If it is signed by your own authority, name that "
        "one's file in SSL_CERT_FILE where the console runs."
    )
    return SourceProblem("bad_certificate", said, field)


def _towards(place: str, request: httpx2.Request) -> httpx2.Request:
    """The same request, sent to this address; the Host header and the name in TLS stay."""
    extensions = {**request.extensions, "sni_hostname": request.url.host}
    url = request.url.copy_with(host=place)
    return httpx2.Request(
        request.method, url, headers=request.headers, stream=request.stream, extensions=extensions
    )


@functools.cache
def _trusted(authorities: str | None) -> ssl.SSLContext:
    """The machine's authorities, or those of this file."""
    return ssl.create_default_context(cafile=authorities) if authorities else httpx2.create_ssl_context()
