"""What goes on to an instance as it came, where any path may: which calls do, and their heads both ways. Pure.

What speaks of a connection stays on it. The caller's key stays here, and what proxies say of where a call came
from is said anew, so that nobody can say it for them. Which origins may call is the endpoint's setting, not the
engine's.
"""

import re
from collections.abc import Mapping, Set
from urllib.parse import unquote

from gateway.admit import SERVED, Admitted, Request
from gateway.callers import address_of
from gateway.client import Client
from gateway.errand import ASYNC
from gateway.errors import Headers, Refusal, wrong_method

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
BODIED = ("POST", "PUT", "PATCH")  # whose body has a length even where it is none
SEPARATOR = re.compile(r"[/\\]")
CROOKED = Refusal(400, "invalid_url", "The path must begin as it was given and hold no part that is '.' or '..'.")
HOPS = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
HOPS |= {b"proxy-authenticate", b"proxy-authorization", b"http2-settings"}
OURS = HOPS | {b"authorization", b"content-length", b"expect", b"forwarded", b"host", b"x-real-ip"}
OURS |= {b"x-request-id"}
NOT_BACK = HOPS | {b"alt-svc", b"date", b"x-request-id"}


def passes(admitted: Admitted, request: Request) -> bytes | Refusal:
    """Path and query for the instance; b"" for a call that is read here, or why it can go nowhere."""
    rest, method = admitted.rest, request.method
    read = SERVED.get(rest) == method and not request.socket
    if not admitted.route.open or read or rest.startswith(ASYNC):
        return b""
    if method not in METHODS:
        return wrong_method(method, ", ".join(METHODS))
    prefix = prefix_of(request)
    if prefix is None or any(part in (".", "..") for part in SEPARATOR.split(rest)):
        return CROOKED
    target = request.target[len(prefix) :]
    return target if target.startswith(b"/") else b"/" + target


def prefix_of(request: Request) -> bytes | None:
    """The part of the target that names the endpoint, as it came; b"" where the host does. None for one that only
    looks like it once it is read, which others may read otherwise."""
    if not request.path.startswith("/e/"):
        return b"" if request.path.startswith("/") else None
    name = request.path[3:].partition("/")[0]
    first, letter, came, *_ = (*request.target.partition(b"?")[0].split(b"/", 3), b"", b"")
    same = not first and letter == b"e" and unquote(came.decode("latin-1")) == name
    return b"/e/" + came if same else None


def without_cookies(headers: Mapping[bytes, bytes], names: Set[bytes]) -> Mapping[bytes, bytes]:
    """The same but for cookies of these names: a browser gives those of a host to all of its ports."""
    came = headers.get(b"cookie")
    if came is None:
        return headers
    kept = b";".join(one for one in came.split(b";") if one.partition(b"=")[0].strip() not in names).strip()
    others = {name: value for name, value in headers.items() if name != b"cookie"}
    return {**others, b"cookie": kept} if kept else others


def head_for(
    client: Client, admitted: Admitted, authority: bytes, headers: Mapping[bytes, bytes], more: Headers
) -> bytes:
    """A request's head for an instance: `headers` are the caller's, `more` ours."""
    method = client.request.method.encode()
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method, admitted.target, authority)]
    dropped = OURS | named_in(headers)
    for name, value in headers.items():
        plain = name.replace(b"_", b"-")  # some frameworks take the one for the other
        if plain not in dropped and not plain.startswith(b"x-forwarded-"):
            lines.append(b"%b: %b\r\n" % (name, value))
    lines += [b"%b: %b\r\n" % header for header in more]
    lines.append(b"x-request-id: %b\r\n\r\n" % client.request_id)
    return b"".join(lines)


def forwarded(client: Client, *, proxies: int) -> Headers:
    """Where a call came from, and to which address; what trusted proxies in front say of it is believed."""
    request = client.request
    said = request.headers if proxies else {}
    scheme = b"https" if client.secure else b"http"
    if said.get(b"x-forwarded-proto") in (b"http", b"https"):
        scheme = said[b"x-forwarded-proto"]
    host = said.get(b"x-forwarded-host") or request.host.encode("latin-1")
    prefix = said.get(b"x-forwarded-prefix", b"").rstrip(b"/") + (prefix_of(request) or b"")
    peer = address_of(client.peer, request.headers.get(b"x-forwarded-for"), proxies=proxies)
    told: Headers = ((b"x-forwarded-proto", scheme), (b"x-forwarded-host", host))
    if peer:
        told += ((b"x-forwarded-for", peer.encode("latin-1")),)
    return (*told, (b"x-forwarded-prefix", prefix)) if prefix else told


def headers_back(status: int, headers: Mapping[bytes, bytes], told: Headers, private: Set[bytes]) -> Headers:
    """What of an instance's head goes on to the caller, beside what we tell it ourselves.

    No cookie of a name in `private`: it would take the place of the console's on the same host.
    """
    dropped = NOT_BACK | named_in(headers) | {name for name, _ in told}
    if b"transfer-encoding" in headers or status == 204:
        dropped |= {b"content-length"}
    return tuple(
        (name, one)
        for name, value in headers.items()
        if name not in dropped and not name.startswith(b"access-control-")
        for one in value.split(b"\n")  # of a name that may not be joined by commas, a line each
        if name != b"set-cookie" or one.partition(b"=")[0].strip() not in private
    )


def named_in(headers: Mapping[bytes, bytes]) -> frozenset[bytes]:
    """Those that the Connection header keeps to this connection."""
    named = headers.get(b"connection")
    return frozenset(one.strip().lower() for one in named.split(b",")) if named else frozenset()
