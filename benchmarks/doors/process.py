"""Processes on a core of their own: started, asked what they cost, ended."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ENDS_WITHIN = 10.0  # seconds from SIGTERM to SIGKILL
CLOCK_OF_PROCESS = 2  # CPUCLOCK_SCHED of the kernel's clock ids


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started in here runs on this core for good; this process only while in here."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """What a process and all its threads have used, to the nanosecond; /proc counts in 10 ms."""
    return time.clock_gettime((~pid << 3) | CLOCK_OF_PROCESS)


def memory_bytes(pid: int) -> int:
    """The proportional set size, else what is resident."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return int(psutil.Process(pid).memory_info().rss)
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("Pss:"))


class Running:
    """One started program with all its children."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int,
        log: Path,
        folder: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        with log.open("wb") as out, pinned(core):
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=os.environ | dict(environ or {}),
            )

    def pids(self) -> list[int]:
        """It and its children; none once it has ended."""
        if self.process.poll() is not None:
            return []
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [self.process.pid, *(child.pid for child in children)]

    def cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self.pids()))

    def memory_bytes(self) -> int:
        return sum(map(memory_bytes, self.pids()))

    def ended(self) -> str | None:
        """Why it isn't there any more, in its own last words; None while it runs."""
        code = self.process.poll()
        return None if code is None else f"ended with {code}: {self.last_words()}"

    def last_words(self) -> str:
        rows = self.log.read_text(errors="replace").strip().splitlines()
        return rows[-1][:200] if rows else "it said nothing"

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        family = [psutil.Process(pid) for pid in self.pids()]
        self.process.terminate()
        _, alive = psutil.wait_procs(family, timeout=ENDS_WITHIN)
        for one in alive:
            one.kill()
        self.process.wait(ENDS_WITHIN)
