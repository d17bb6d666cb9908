"""Whose pages may call from a browser: the console's own Try it box, and the origins that an endpoint names."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from gateway.errors import Headers

LOOPBACK = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}
EXPOSED = b"x-request-id, retry-after, x-queue-ms, x-cold-start, " + b", ".join(
    b"x-ratelimit-%b-%b" % (what, of)
    for what in (b"limit", b"remaining", b"reset")
    for of in (b"requests", b"tokens")
)
WISHED = b"authorization, content-type, x-request-id"  # by who names none


class Cors:
    """Answers for the origins of these URLs; a loopback address counts by its other name too."""

    def __init__(self, urls: Iterable[str] = ()) -> None:
        self.origins = frozenset(origin.encode() for url in urls for origin in _origins(url))

    def headers(self, origin: bytes | None, named: frozenset[bytes] = frozenset()) -> Headers:
        """What an answer to this origin carries, if the endpoint names these; nothing for a stranger's."""
        if origin is None or origin not in self.origins | named:
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED),
            (b"vary", b"origin"),
        )

    def preflight(self, asked: Mapping[bytes, bytes], named: frozenset[bytes] = frozenset()) -> Headers | None:
        """What the answer to a browser that asks whether it may carries besides; None when it may not."""
        return _allowed(asked, b"GET, POST, DELETE") if self.headers(asked.get(b"origin"), named) else None

    def preflight_of_any(self, asked: Mapping[bytes, bytes], named: frozenset[bytes]) -> Headers | None:
        """The same where any path may be called, in any way; None for what asks no such thing."""
        if b"access-control-request-method" not in asked or not self.headers(asked.get(b"origin"), named):
            return None
        return _allowed(asked, b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")


def _allowed(asked: Mapping[bytes, bytes], methods: bytes) -> Headers:
    """Whichever headers are asked for: OpenAI's own client alone sends eight of its own."""
    return (
        (b"access-control-allow-methods", methods),
        (b"access-control-allow-headers", asked.get(b"access-control-request-headers", WISHED)),
        (b"access-control-max-age", b"600"),
    )


def _origins(url: str) -> list[str]:
    place = urlsplit(url)
    port = f":{place.port}" if place.port else ""
    hosts = [place.hostname or "", LOOPBACK.get(place.hostname or "", "")]
    return [f"{place.scheme}://{host}{port}" for host in hosts if host]
