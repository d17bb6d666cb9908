"""Fetch one large file: with progress, from where it ended, checked, and never for ever.

Own code instead of each store's downloader because those tell nobody how far they are but a terminal, hide
their partial files and their locks, and wait on a connection that no longer says anything.
"""

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import httpx2

from endpoints.sources.base import SourceProblem

PIECE: Final = 1 << 18
LEAST: Final = 1 << 14  # bytes per `stall` seconds below which a connection counts as dead
LONGEST_WAIT: Final = 5.0
RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})


class Interrupted(Exception):
    """The connection ended or stood still; try again from here."""


@dataclass(frozen=True)
class Stream:
    """What a server sends: bytes from `start` on, which is 0 where it can't begin in the middle. `length` says how
    many, if it does."""

    start: int
    pieces: Iterator[bytes]
    length: int | None = None


Open = Callable[[int], AbstractContextManager[Stream]]
"""`open(offset)`: the file's bytes from there on. SourceProblem is final, Interrupted and TransportError pass."""


@dataclass(frozen=True)
class Digest:
    """What a file's bytes must come to: "sha256", "md5", "crc32c" or "git-blob SIZE", in hexadecimal."""

    name: str
    value: str

    @classmethod
    def of_base64(cls, name: str, value: str) -> "Digest":
        return cls(name, base64.b64decode(value).hex())


@dataclass(frozen=True)
class Download:
    """What to fetch and how patiently.

    `stall`: seconds without (noticeable) progress after which a connection is given up; `patience`: how
    many times in a row an attempt may bring nothing before the whole is given up. `origin` names the server.
    """

    open: Open
    partial: Path
    size: int
    expected: Digest | None
    origin: str
    stall: float = 30.0
    patience: int = 5


class Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Partial:
    """The bytes that are there already, and their digests so far: always sha256, which names blobs."""

    def __init__(self, path: Path, other: str, progress: Callable[[int], None]) -> None:
        self.path, self.size = path, 0
        self.names = {"sha256", other}
        self.digests = {name: _hasher(name) for name in self.names}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                self._count(piece)
                progress(self.size)

    def restart(self) -> None:
        self.path.write_bytes(b"")
        self.size, self.digests = 0, {name: _hasher(name) for name in self.names}

    def add(self, piece: bytes, file: BinaryIO) -> None:
        file.write(piece)
        self._count(piece)

    def _count(self, piece: bytes) -> None:
        self.size += len(piece)
        for digest in self.digests.values():
            digest.update(piece)


def download(wanted: Download, progress: Callable[[int], None]) -> str:
    """Fill `wanted.partial` and answer its sha256. SourceProblem when it can't be had or is not what it
    should be. `progress` may raise to cancel: what was fetched stays for the next time.
    """
    partial = _Partial(wanted.partial, wanted.expected.name if wanted.expected else "sha256", progress)
    if partial.size > wanted.size:
        partial.restart()
    failures, reason = 0, ""
    while partial.size < wanted.size:
        before = partial.size
        try:
            _continue(wanted, partial, progress)
        except (Interrupted, httpx2.TransportError) as broken:
            reason = str(broken) or type(broken).__name__
        failures = 0 if partial.size > before else failures + 1
        if failures >= wanted.patience:
            raise _gave_up(wanted, partial.size, reason)
        if failures:
            time.sleep(min(LONGEST_WAIT, 0.1 * 2**failures))
    return _checked(partial, wanted)


@contextmanager
def http_stream(
    client: httpx2.Client,
    url: str,
    headers: Mapping[str, str],
    offset: int,
    raise_for_status: Callable[[httpx2.Response], None],
    stall: float,
) -> Iterator[Stream]:
    """A GET from `offset` on; `raise_for_status` gives words to an answer that is final."""
    asked = {"Accept-Encoding": "identity", **headers} | ({"Range": f"bytes={offset}-"} if offset else {})
    with client.stream("GET", url, headers=asked, timeout=stall) as response:
        if response.status_code in RETRIED:
            raise Interrupted(f"the server answered {response.status_code}")
        if response.status_code == 416:
            yield Stream(0, iter(()))
            return
        raise_for_status(response)
        said = response.headers.get("Content-Range", "")
        resumes = response.status_code == 206 and said.startswith(f"bytes {offset}-")
        said = response.headers.get("Content-Length", "")
        length = int(said) if said.isdigit() else None
        # As they come: a slow server is to be seen.
        yield Stream(offset if resumes else 0, response.iter_raw(), length)


def http_piece(
    client: httpx2.Client,
    url: str,
    headers: Mapping[str, str],
    offset: int,
    size: int,
    raise_for_status: Callable[[httpx2.Response], None],
) -> bytes:
    """A part of a file by a range request; fewer bytes only at its end."""
    asked = {"Accept-Encoding": "identity", **headers, "Range": f"bytes={offset}-{offset + size - 1}"}
    with client.stream("GET", url, headers=asked) as response:
        if response.status_code == 416:
            return b""
        raise_for_status(response)
        skip = 0 if response.status_code == 206 else offset  # a proxy may answer the whole file
        piece = b""
        for part in response.iter_raw():
            piece += part
            if len(piece) >= skip + size:
                break
        return piece[skip : skip + size]


def _continue(wanted: Download, partial: _Partial, progress: Callable[[int], None]) -> None:
    with wanted.open(partial.size) as stream:
        if stream.start != partial.size:
            if stream.length not in (None, wanted.size):  # a network's own page is no reason to lose what is here
                raise Interrupted(f"the server sent something else, of {stream.length:,} bytes")
            partial.restart()
        _write(stream.pieces, wanted, partial, progress)


def _write(pieces: Iterator[bytes], wanted: Download, partial: _Partial, progress: Callable[[int], None]) -> None:
    since, then = time.monotonic(), partial.size
    with partial.path.open("ab") as file:
        for piece in pieces:
            if partial.size + len(piece) > wanted.size:
                partial.path.unlink()  # what came before may be no better
                raise SourceProblem(
                    "damaged", f"The file is longer than the {wanted.size:,} bytes that were declared."
                )
            partial.add(piece, file)
            progress(partial.size)
            now = time.monotonic()
            if now - since > wanted.stall:
                if partial.size - then < LEAST:
                    raise Interrupted("hardly any bytes are coming")
                since, then = now, partial.size
    if partial.size < wanted.size:
        raise Interrupted("the connection ended early")


def _checked(partial: _Partial, wanted: Download) -> str:
    expected = wanted.expected
    if expected and partial.digests[expected.name].hexdigest() != expected.value:
        partial.path.unlink()
        raise SourceProblem(
            "damaged",
            f"The file arrived damaged: its {expected.name.split()[0]} is not the declared one. "
            "It was thrown away; try again.",
            passing=True,
        )
    return partial.digests["sha256"].hexdigest()


def _hasher(name: str) -> Hasher:
    if name == "crc32c":
        from google_crc32c import Checksum  # noqa: PLC0415 - for Google's composite objects only

        kind: Any = Checksum
        return _Crc32c(kind())
    if name.startswith("git-blob "):
        return hashlib.sha1(f"blob {name.split()[1]}\0".encode(), usedforsecurity=False)
    return hashlib.new(name, usedforsecurity=False)


class _Crc32c:
    """Its hexdigest is bytes; hashlib's is text."""

    def __init__(self, checksum: Any) -> None:
        self.checksum = checksum

    def update(self, data: bytes, /) -> None:
        self.checksum.update(data)

    def hexdigest(self) -> str:
        return str(self.checksum.digest().hex())


def _gave_up(wanted: Download, done: int, reason: str) -> SourceProblem:
    return SourceProblem(
        "stalled",
        f"The download from {wanted.origin} made no progress in {wanted.patience} attempts ({reason}); "
        f"{done:,} of {wanted.size:,} bytes are here. Try again: it goes on from there.",
        passing=True,
    )
