"""Fetch one large file: with progress, from where it ended, checked, and never for ever.

Own code instead of huggingface_hub's downloader because that one tells nobody how far it is but a terminal,
hides its partial files and their locks, and waits on a connection that no longer says anything.
"""

import errno
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx2

from endpoints.sources.base import SourceProblem

PIECE: Final = 1 << 18
LEAST: Final = 1 << 14  # bytes per `stall` seconds below which a connection counts as dead
LONGEST_WAIT: Final = 5.0
RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})


class _Interrupted(Exception):
    """The connection ended or stood still; try again from here."""


@dataclass(frozen=True)
class Download:
    """What to fetch and how patiently.

    `stall`: seconds without (noticeable) progress after which a connection is given up; `patience`: how
    many times in a row an attempt may bring nothing before the whole is given up.
    """

    url: str
    partial: Path
    size: int
    sha256: str | None
    headers: Mapping[str, str] = field(repr=False)
    stall: float = 30.0
    patience: int = 5


class _Partial:
    """The bytes that are there already, and their digest so far."""

    def __init__(self, path: Path, progress: Callable[[int], None]) -> None:
        self.path, self.size, self.digest = path, 0, hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                self.digest.update(piece)
                self.size += len(piece)
                progress(self.size)

    def restart(self) -> None:
        self.path.write_bytes(b"")
        self.size, self.digest = 0, hashlib.sha256()

    def add(self, piece: bytes, file: BinaryIO) -> None:
        file.write(piece)
        self.digest.update(piece)
        self.size += len(piece)


def download(
    client: httpx2.Client,
    wanted: Download,
    progress: Callable[[int], None],
    raise_for_status: Callable[[Any], None],
) -> str:
    """Fill `wanted.partial` and answer its sha256. SourceProblem when it can't be had or is not what it
    should be; `raise_for_status` gives words to an answer that is final. `progress` may raise to cancel:
    what was fetched stays for the next time.
    """
    partial = _Partial(wanted.partial, progress)
    if partial.size > wanted.size:
        partial.restart()
    failures, reason = 0, ""
    while partial.size < wanted.size:
        before = partial.size
        try:
            _continue(client, wanted, partial, progress, raise_for_status)
        except (_Interrupted, httpx2.TransportError) as broken:
            reason = str(broken) or type(broken).__name__
        except OSError as refused:
            if refused.errno == errno.ENOSPC:
                raise SourceProblem("disk_full", "The disk ran full while the model was fetched.") from None
            raise
        failures = 0 if partial.size > before else failures + 1
        if failures >= wanted.patience:
            raise _gave_up(wanted, partial.size, reason)
        if failures:
            time.sleep(min(LONGEST_WAIT, 0.1 * 2**failures))
    return _checked(partial, wanted)


def _continue(
    client: httpx2.Client,
    wanted: Download,
    partial: _Partial,
    progress: Callable[[int], None],
    raise_for_status: Callable[[Any], None],
) -> None:
    headers = {**wanted.headers, "Accept-Encoding": "identity"}
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
    with client.stream("GET", wanted.url, headers=headers, timeout=wanted.stall) as response:
        if response.status_code in RETRIED:
            raise _Interrupted(f"the server answered {response.status_code}")
        if response.status_code == 416:
            return partial.restart()
        raise_for_status(response)
        if partial.size and not _resumes(response, partial.size):
            partial.restart()
        return _write(response, wanted, partial, progress)


def _resumes(response: httpx2.Response, size: int) -> bool:
    said = response.headers.get("Content-Range", "")
    return response.status_code == 206 and said.startswith(f"bytes {size}-")


def _write(
    response: httpx2.Response, wanted: Download, partial: _Partial, progress: Callable[[int], None]
) -> None:
    since, then = time.monotonic(), partial.size
    with partial.path.open("ab") as file:
        for piece in response.iter_raw(PIECE if wanted.size > PIECE else None):
            if partial.size + len(piece) > wanted.size:
                raise SourceProblem(
                    "damaged", f"The file is longer than the {wanted.size:,} bytes that were declared."
                )
            partial.add(piece, file)
            progress(partial.size)
            now = time.monotonic()
            if now - since > wanted.stall:
                if partial.size - then < LEAST:
                    raise _Interrupted("hardly any bytes are coming")
                since, then = now, partial.size
    if partial.size < wanted.size:
        raise _Interrupted("the connection ended early")


def _checked(partial: _Partial, wanted: Download) -> str:
    found = partial.digest.hexdigest()
    if wanted.sha256 and found != wanted.sha256:
        partial.path.unlink()
        raise SourceProblem(
            "damaged",
            "The file arrived damaged: its sha256 is not the declared one. It was thrown away; try again.",
            passing=True,
        )
    return found


def _gave_up(wanted: Download, done: int, reason: str) -> SourceProblem:
    host = httpx2.URL(wanted.url).host
    return SourceProblem(
        "stalled",
        f"The download from {host} made no progress in {wanted.patience} attempts ({reason}); {done:,} of "
        f"{wanted.size:,} bytes are here. Try again: it goes on from there.",
        passing=True,
    )
