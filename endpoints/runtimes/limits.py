"""Memory and CPU limits for a local instance: cgroup v2, cgroup v1, or what a process can limit by itself."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000


@dataclass(frozen=True)
class Group:
    """A writable cgroup under which instances get one each: `v1` has a tree per controller, v2 one for all."""

    memory: Path
    cpu: Path | None
    v1: bool

    def create(self, name: str, cpu_millis: int, memory_bytes: int) -> list[str]:
        """Make the instance's cgroup; the supervisor's options to enter and to watch it."""
        quota = cpu_millis * PERIOD_US // 1000
        memory = self.memory / name
        memory.mkdir(parents=True, exist_ok=True)
        _write(memory / ("memory.limit_in_bytes" if self.v1 else "memory.max"), str(memory_bytes))
        join = [memory]
        if self.cpu is not None:
            cpu = self.cpu / name
            cpu.mkdir(parents=True, exist_ok=True)
            if self.v1:
                _write(cpu / "cpu.cfs_period_us", str(PERIOD_US))
                _write(cpu / "cpu.cfs_quota_us", str(quota))
                join.append(cpu)
            else:
                _write(cpu / "cpu.max", f"{quota} {PERIOD_US}")
        counter = "memory.oom_control" if self.v1 else "memory.events"
        procs = ":".join(str(group / "cgroup.procs") for group in join)
        return [f"join={procs}", f"oom={memory / counter}"]

    def remove(self, name: str) -> None:
        """Take the instance's cgroup away; one that is still in use stays."""
        for tree in {self.memory, self.cpu} - {None}:
            with suppress(OSError):
                os.rmdir(f"{tree}/{name}")

    def explain(self) -> str:
        """One sentence for Capacity.reason."""
        kept = "memory and CPU" if self.cpu is not None else "memory, but not CPU,"
        return f"{kept} are kept within limits by cgroup v{1 if self.v1 else 2}"


@dataclass(frozen=True)
class Alone:
    """No cgroup may be written: the engine's own data is limited, its CPU is not."""

    def create(self, name: str, cpu_millis: int, memory_bytes: int) -> list[str]:
        """The supervisor's option for RLIMIT_DATA."""
        return [f"data={memory_bytes}"]

    def remove(self, name: str) -> None:
        """Nothing was made."""

    def explain(self) -> str:
        """One sentence for Capacity.reason."""
        return "no writable cgroup: memory is limited per process (RLIMIT_DATA), CPU is not limited"


Limits = Group | Alone


def detect(data: str, *, cgroups: Path = CGROUPS, own: str | None = None) -> Limits:
    """What this process may use for the installation `data`. `own` is /proc/self/cgroup's text."""
    try:
        text = Path("/proc/self/cgroup").read_text("ascii") if own is None else own
    except OSError:
        return Alone()
    paths = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    name = f"tir-{data}"
    if (cgroups / "cgroup.controllers").exists():
        both = _child(cgroups / paths.get("", ""), name, v2=True)
        return Group(both, both, v1=False) if both else Alone()
    memory = _child(cgroups / "memory" / paths.get("memory", ""), name)
    cpu = _child(cgroups / "cpu" / paths.get("cpu", ""), name)
    return Group(memory, cpu, v1=True) if memory else Alone()


def _child(parent: Path, name: str, *, v2: bool = False) -> Path | None:
    """A cgroup of ours below the one we are in, with its controllers on; None if the system says no."""
    child = parent / name
    try:
        if v2:
            _write(parent / "cgroup.subtree_control", "+memory +cpu")
        child.mkdir(exist_ok=True)
        if v2:
            _write(child / "cgroup.subtree_control", "+memory +cpu")
    except OSError:
        return None
    return child


def _write(path: Path, text: str) -> None:
    # Not write_text: a cgroup file must exist already, and creating one would hide that it doesn't.
    with open(os.open(path, os.O_WRONLY), "w", encoding="ascii") as file:
        file.write(text)
