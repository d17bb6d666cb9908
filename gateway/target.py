"""The small parts of reading a request's head: its target, its texts, and what to say when it is none."""

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

import httptools

from gateway.errors import Refusal

LONG_TARGET = 256  # bytes, past which it is not worth remembering


class Unreadable(Exception):
    """What came is no request that can be answered as one; the refusal says what is wrong with it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def unreadable(status: int, code: str, message: str) -> Unreadable:
    return Unreadable(Refusal(status, code, message))


class Target(NamedTuple):
    """Of a request: its path, read; the host of an absolute one; path and query as they came."""

    path: str
    host: bytes | None
    raw: bytes


def target_of(url: bytes) -> Target:
    """Raises HttpParserInvalidURLError."""
    return _read_target(url) if len(url) > LONG_TARGET else _known_target(url)


def _read_target(url: bytes) -> Target:
    place = httptools.parse_url(url)
    came = place.path or b"/"
    path = came.decode("latin-1")
    raw = came if place.query is None else b"%b?%b" % (came, place.query)
    return Target(unquote(path) if "%" in path else path, place.host, raw)


_known_target = lru_cache(maxsize=1024)(_read_target)  # callers ask for few different ones


def too_long(limit: int) -> Unreadable:
    return unreadable(431, "headers_too_large", f"The head is larger than {limit // 1024} KiB.")


def malformed(problem: Exception) -> Refusal:
    return Refusal(400, "invalid_request", f"This is not HTTP as it should be: {problem}.")


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
