"""The mock engine and the load generator: two small C programs, so that they cost less than what they measure."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.doors.process import cpu_seconds, pinned

SOURCES = Path(__file__).parent
PACE_US = 10_000  # between two events of a stream


@dataclass(frozen=True)
class Load:
    """What one run of the load generator saw. Microseconds; `events` are those of streams."""

    answered: int
    events: int
    seconds: float  # from the start to the last answer
    errors: int
    reconnects: int
    p50_us: float  # of whole answers, of a stream's first event
    p90_us: float
    p99_us: float
    max_us: float
    delay_p50_us: float  # from the engine's sending of an event to its arrival
    delay_p99_us: float
    request_bytes: int
    trouble: str  # the first error, in words
    cpu_seconds: float = 0.0  # the load generator's own


@dataclass(frozen=True)
class Tools:
    """Both programs, made for this machine."""

    engine: Path
    load: Path

    def drive(
        self,
        port: int,
        path: str,
        key: str,
        *,
        connections: int,
        seconds: float,
        events: int = 0,
        pace_us: int = PACE_US,
    ) -> Load:
        """Ask at `port` for `seconds`: for streams of `events`, or for JSON when that is 0."""
        kind = "stream" if events else "json"
        words = (port, kind, connections, seconds, events, pace_us, path, key)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = subprocess.run(
            [str(self.load), *map(str, words)], check=True, capture_output=True, timeout=seconds + 120
        ).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found: dict[str, Any] = json.loads(told)
        return Load(**found, cpu_seconds=spent)


@dataclass(frozen=True)
class Seen:
    """What the engine says of itself: answers unfinished now, how many were hung up on and when it last heard of
    that (CLOCK_MONOTONIC, nanoseconds), bytes of floods that were taken."""

    open: int
    hung_up: int
    hung_up_at: int
    flooded: int


@dataclass(frozen=True)
class MockEngine:
    port: int
    pid: int

    def seen(self) -> Seen:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as line:
            line.request("GET", "/seen")
            return Seen(**json.load(line.getresponse()))

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)


def build(folder: Path) -> Tools:
    """Compile both into `folder`. SystemExit that says what to install when there is no compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise SystemExit("No C compiler (cc). On Debian: apt-get install gcc libc6-dev")
    made = {}
    for name in ("engine", "load"):
        made[name] = folder / name
        command = [compiler, "-O2", "-o", str(made[name]), str(SOURCES / f"{name}.c")]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name}.c does not compile here (libc6-dev installed?):\n{done.stderr}")
    return Tools(made["engine"], made["load"])


@contextmanager
def mock_engine(tools: Tools, core: int, pace_us: int = PACE_US) -> Iterator[MockEngine]:
    """The engine on one core; it ends by itself when this process does."""
    with pinned(core):
        process = subprocess.Popen(
            [str(tools.engine), str(pace_us)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    with process:
        assert process.stdout is not None
        yield MockEngine(int(process.stdout.readline()), process.pid)
