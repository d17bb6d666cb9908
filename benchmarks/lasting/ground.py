"""One gateway process before the mock engine: what each part of the endurance benchmark has to itself."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.doors.native import PACE_US, MockEngine, Tools, mock_engine
from benchmarks.doors.peers import Start, ours
from benchmarks.doors.process import Running, pinned

MB = 2**20
USUAL_FILES = 1024  # what a shell lets a process open; whoever needs more has to ask for it
PATIENCE = 30.0
MESSAGES = [{"role": "user", "content": "Tell me a short story about a lighthouse keeper, please."}]


@dataclass(frozen=True)
class Cores:
    gateway: int
    harness: int


@dataclass(frozen=True)
class Ground:
    tools: Tools
    engine: MockEngine
    gateway: Running
    start: Start

    def request(self, **more: Any) -> bytes:
        """One on a connection that stays: `more` goes into the body, the mock's own wishes too."""
        body = json.dumps({"model": "tiny", "messages": MESSAGES, **more}, separators=(",", ":")).encode()
        head = f"POST {self.start.path} HTTP/1.1\r\nHost: tiny\r\nAuthorization: Bearer {self.start.key}\r\n"
        return head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def memory_mb(self) -> float:
        return self.gateway.memory_bytes() / MB

    def heap_mb(self) -> float:
        """Of that what no file stands behind: all but code and the spool, whose pages of a file fill up to 4 MB
        and begin anew."""
        rows = Path(f"/proc/{self.gateway.process.pid}/smaps_rollup").read_text().splitlines()
        return int(next(row.split()[1] for row in rows if row.startswith("Pss_Anon:"))) / 1024

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.gateway.process.pid}/fd"))

    def health(self) -> dict[str, Any]:
        """What /healthz says; {} while nobody answers there."""
        with closing(HTTPConnection("127.0.0.1", self.start.port, timeout=10)) as line:
            try:
                line.request("GET", "/healthz")
                answer = line.getresponse()
            except OSError:
                return {}
            found: dict[str, Any] = json.load(answer)
            return found if answer.status == 200 else {}

    def idle(self) -> bool:
        """Whether nothing is left of any request."""
        health = self.health()
        return not (health["in_flight"] or health["queued"] or self.engine.seen().open)


@contextmanager
def standing(tools: Tools, cores: Cores, folder: Path, pace_us: int = PACE_US) -> Iterator[Ground]:
    """A fresh gateway each time: nobody lives off memory that another part has left free. SystemExit when it
    does not start."""
    folder.mkdir()
    with mock_engine(tools, cores.harness, pace_us) as engine, pinned(cores.harness):
        start = ours(folder, engine.port)
        with _usual_files():
            gateway = Running(
                start.command, core=cores.gateway, log=folder / "log", folder=folder, environ=start.environ
            )
        ground = Ground(tools, engine, gateway, start)
        try:
            if not within(PATIENCE, lambda: gateway.ended() or ground.health()):
                raise SystemExit(f"The gateway does not answer: {gateway.last_words()}")
            if said := gateway.ended():
                raise SystemExit(f"The gateway {said}")
            yield ground
        finally:
            gateway.stop()


@contextmanager
def _usual_files() -> Iterator[None]:
    """What is started in here begins with the limit on open files that most processes begin with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(USUAL_FILES, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def within(seconds: float, look: Callable[[], object], every: float = 0.05) -> bool:
    """Whether `look()` held in time."""
    ends = time.monotonic() + seconds
    while not look():
        if time.monotonic() > ends:
            return False
        time.sleep(every)
    return True
