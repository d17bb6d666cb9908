"""The one page that calls from another origin: the console's Try it box. Nobody else's browser may."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from gateway.errors import Headers

LOOPBACK = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}
ALLOWED: Headers = (
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type, x-request-id"),
    (b"access-control-max-age", b"600"),
)


class Cors:
    """Answers for the origins of these URLs; a loopback address counts by its other name too."""

    def __init__(self, urls: Iterable[str] = ()) -> None:
        self.origins = frozenset(origin.encode() for url in urls for origin in _origins(url))

    def headers(self, origin: bytes | None) -> Headers:
        """What an answer to this origin carries; nothing for a stranger's."""
        if origin is None or origin not in self.origins:
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"x-request-id, retry-after"),
            (b"vary", b"origin"),
        )

    def preflight(self, origin: bytes | None) -> Headers | None:
        """What the answer to a browser that asks whether it may carries besides; None when it may not."""
        return ALLOWED if self.headers(origin) else None


def _origins(url: str) -> list[str]:
    place = urlsplit(url)
    port = f":{place.port}" if place.port else ""
    hosts = [place.hostname or "", LOOPBACK.get(place.hostname or "", "")]
    return [f"{place.scheme}://{host}{port}" for host in hosts if host]
