"""One line of JSON per request that ended: who asked for what, and how it went. Never a body, never a secret.

    {"at": "2026-03-01T09:07:30.125Z", "request_id", "endpoint", "revision_id", "key_id", "method", "path",
     "status", "code", "instance", "stream", "cold_start", "queue_ms", "connect_ms", "first_byte_ms", "ttft_ms",
     "total_ms", "prompt_tokens", "completion_tokens", "estimated", "bytes_in", "bytes_out"[, "address"]}

`at` is the end. What was not measured is null. Lines go out twice a second from a thread of their own: a log
that nobody reads must not hold up traffic. What finds no room is counted, and told as {"dropped": 12}.
"""

import os
import select
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from threading import Lock, Thread
from typing import Any

import orjson

from gateway.ended import Ended
from gateway.totals import UNBILLED
from monitoring import redact

MOST_LINES = 20_000  # that wait for a slow disk or reader
LONGEST_PATH = 300  # characters


class Mode(StrEnum):
    OFF = "off"
    ERRORS = "errors"
    ALL = "all"


Write = Callable[[Sequence[bytes]], None]
"""Takes whole lines; may block, may raise OSError."""


class AccessLog:
    """`addresses`: callers' addresses are told too."""

    def __init__(self, mode: Mode, write: Write, *, addresses: bool = False) -> None:
        self.mode = mode
        self.write = write
        self.addresses = addresses
        self._lines: list[bytes] = []
        self._dropped = 0
        self._lock = Lock()  # over what was dropped, which both threads count
        self._writer: Thread | None = None

    def fold(self, batch: Sequence[Ended], names: Mapping[int, str]) -> None:
        """Hold lines of those that are to be logged; `names` of endpoints by id."""
        if self.mode == Mode.OFF:
            return
        lowest = 0 if self.mode == Mode.ALL else 400
        for one in batch:
            if one.record.status >= lowest:
                if len(self._lines) < MOST_LINES:
                    self._lines.append(line(one, names, addresses=self.addresses))
                else:
                    with self._lock:
                        self._dropped += 1

    def send(self) -> None:
        """Have what is held written, unless that is going on already. Returns before it is."""
        if self._writer is not None and self._writer.is_alive():
            return
        lines, dropped = self._lines, self._dropped
        if lines or dropped:
            self._lines, self._dropped = [], 0
            self._writer = Thread(target=self._write, args=(lines, dropped), name="access-log", daemon=True)
            self._writer.start()

    def close(self, patience: float = 1.0) -> None:
        """Write what is left, unless that takes longer than `patience` seconds."""
        self._wait(patience)
        self.send()
        self._wait(patience)

    def _wait(self, patience: float) -> None:
        if self._writer is not None:
            self._writer.join(patience)

    def _write(self, lines: list[bytes], dropped: int) -> None:
        """In a thread of its own, one at a time: the next begins after it has ended."""
        told = [orjson.dumps({"dropped": dropped}) + b"\n"] if dropped else []
        try:
            self.write([*lines, *told])
        except OSError:
            with self._lock:
                self._dropped += len(lines) + dropped


def line(one: Ended, names: Mapping[int, str], *, addresses: bool = False) -> bytes:
    record = one.record
    told: dict[str, Any] = {
        "at": moment(record.at),
        "request_id": one.request_id,
        "endpoint": names.get(record.endpoint_id, str(record.endpoint_id)),
        "revision_id": record.revision_id,
        "key_id": None if record.key_id == UNBILLED else record.key_id,
        "method": one.method,
        "path": shown(one.path),
        "status": record.status,
        "code": one.code or None,
        "instance": one.instance or None,
        "stream": one.stream,
        "cold_start": one.cold,
        "queue_ms": milliseconds(one.queue_us),
        "connect_ms": milliseconds(one.connect_us),
        "first_byte_ms": milliseconds(one.first_byte_us),
        "ttft_ms": milliseconds(record.ttft_us),
        "total_ms": milliseconds(record.latency_us),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "estimated": record.estimated,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
    }
    if addresses:
        told["address"] = one.address or None
    return orjson.dumps(told) + b"\n"


@lru_cache(maxsize=1024)  # an endpoint's paths are few
def shown(path: str) -> str:
    """The path without a query, without what looks like a key, and cut."""
    return redact.clean("/" + path.partition("?")[0])[:LONGEST_PATH]


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def to(path: str) -> Write:
    """The end of a file, opened anew each time so that it may be moved away; without a path, standard output."""
    if not path:
        return to_standard_output

    def write(lines: Sequence[bytes]) -> None:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(file, "ab") as opened:
            opened.writelines(lines)

    return write


def to_standard_output(lines: Sequence[bytes]) -> None:
    """In portions that a pipe takes whole, so that no other line of this process comes between."""
    portion = b""
    for one in (*lines, b""):
        if portion and (not one or len(portion) + len(one) > select.PIPE_BUF):
            while portion:
                portion = portion[os.write(1, portion) :]
        portion += one
