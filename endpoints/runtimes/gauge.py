"""What process trees use: CPU between two looks, memory at this one."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from endpoints.runtimes.base import Sampled

PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)
FORGET_SECONDS = 600.0


class Gauge:
    """Remembers the last look at each instance, because CPU is a difference."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}

    def read(self, trees: Mapping[str, tuple[int, ...]]) -> dict[str, Sampled]:
        """A sample of each tree of process ids. Old looks are dropped."""
        now = time.monotonic()
        samples = {}
        looks = {name: look for name, look in self._last.items() if now - look[0] < FORGET_SECONDS}
        for name, pids in trees.items():
            seconds = sum(_cpu_seconds(pid) for pid in pids)
            looks[name] = (now, seconds)
            samples[name] = Sampled(
                cpu_millis=self._millis(name, now, seconds), memory_bytes=sum(_memory(pid) for pid in pids)
            )
        self._last = looks
        return samples

    def _millis(self, name: str, now: float, seconds: float) -> int | None:
        if name not in self._last or now <= self._last[name][0]:
            return None
        then, before = self._last[name]
        return max(0, round(1000 * (seconds - before) / (now - then)))


def _cpu_seconds(pid: int) -> float:
    with suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0


def _memory(pid: int) -> int:
    """Proportional memory: a model file that several instances map counts once. Resident where unknown."""
    with suppress(OSError):
        found = PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_bytes())
        if found:
            return int(found[1]) * 1024
    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0
