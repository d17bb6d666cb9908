"""Which processes of this machine are instances of this installation: read from their environment.

The labels travel with the process itself, so no file can lie about what runs, and a number that the system
gave to another process is never mistaken for ours.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from endpoints.runtimes.base import Unavailable

PROC = Path("/proc")
SHOWN_EVERY = 0.0005  # seconds between two looks for a newborn's labels


@dataclass(frozen=True)
class Labels:
    """What an instance carries in its environment. `data` names the installation, so two never mix."""

    data: str
    name: str
    owner: str
    revision: int
    cpu_millis: int
    memory_bytes: int
    started_at: float

    def environ(self) -> dict[str, str]:
        """The labels as environment variables."""
        return {
            "TIR_DATA": self.data,
            "TIR_INSTANCE": self.name,
            "TIR_OWNER": self.owner,
            "TIR_REVISION": str(self.revision),
            "TIR_CPU_MILLIS": str(self.cpu_millis),
            "TIR_MEMORY": str(self.memory_bytes),
            "TIR_STARTED_AT": f"{self.started_at:.3f}",
            "TIR_ROLE": "supervisor",
        }


def labels_in(environ: Mapping[str, str]) -> Labels:
    """The labels in an environment. KeyError or ValueError if it has none."""
    return Labels(
        data=environ["TIR_DATA"],
        name=environ["TIR_INSTANCE"],
        owner=environ["TIR_OWNER"],
        revision=int(environ["TIR_REVISION"]),
        cpu_millis=int(environ["TIR_CPU_MILLIS"]),
        memory_bytes=int(environ["TIR_MEMORY"]),
        started_at=float(environ["TIR_STARTED_AT"]),
    )


@dataclass(frozen=True)
class Live:
    """An instance with at least one living process. `supervisor` is None for one that lost its parent."""

    labels: Labels
    supervisor: int | None = None
    engines: tuple[int, ...] = ()


def live(data: str) -> dict[str, Live]:
    """The live instances of this installation, by name. Unavailable if the processes can't be listed."""
    found: dict[str, Live] = {}
    for pid, environ in _environments(f"TIR_DATA={data}".encode()):
        try:
            labels = labels_in(environ)
        except (KeyError, ValueError):
            continue
        seen = found.get(labels.name, Live(labels))
        if environ.get("TIR_ROLE") == "supervisor":
            # Between fork and exec the engine still looks like its parent, which has the lower start.
            seen = replace(seen, supervisor=seen.supervisor or pid)
        else:
            seen = replace(seen, engines=(*seen.engines, pid))
        found[labels.name] = seen
    return found


def await_labels(pid: int) -> None:
    """Return once a process that was just started can be seen by its labels, or has ended.

    Between its exec and its first instruction a process has no environment that could be read: 20 ms at times.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError):  # collected already
        while not (PROC / str(pid) / "environ").read_bytes():
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                return
            time.sleep(SHOWN_EVERY)


def _environments(mark: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """Pid and environment of each process of ours whose environment has this entry. Zombies have none."""
    if sys.platform != "linux":
        yield from _environments_by_psutil(mark)
        return
    try:
        pids = sorted(int(entry) for entry in os.listdir(PROC) if entry.isdigit())
    except OSError as error:
        raise Unavailable(f"cannot list the processes of this machine: {error}") from error
    for pid in pids:
        try:
            raw = (PROC / str(pid) / "environ").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        entries = raw.split(b"\0")
        if mark in entries:
            yield pid, dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def _environments_by_psutil(mark: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    name, value = mark.decode().split("=", 1)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environ = process.environ()
            if environ.get(name) == value:
                yield process.pid, environ


def kill_orphans(data: str, name: str, *, ended: bool) -> None:
    """End the processes of one instance that nobody watches: its supervisor is gone, or has written down the end
    already and is on its way out. Looks again first: a scan may meet a child before its parent."""
    again = live(data).get(name)
    if again is not None and (ended or again.supervisor is None):
        for pid in again.engines:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
