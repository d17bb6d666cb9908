"""Which processes are ours, written down so that the next `up` can end what a killed one left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass

import psutil

from tir_console.up.folder import Folder

NAME = "processes.json"


@dataclass(frozen=True)
class Entry:
    """`started` tells a process from a later one with the same number."""

    pid: int
    started: float
    stop: int

    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Roster:
    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}

    def add(self, name: str, pid: int, stop: signal.Signals) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.entries[name] = Entry(pid, psutil.Process(pid).create_time(), int(stop))
            self._save()

    def remove(self, name: str) -> None:
        if self.entries.pop(name, None):
            self._save()

    def _save(self) -> None:
        self.folder.write(NAME, json.dumps({name: vars(entry) for name, entry in self.entries.items()}))


def end_leftovers(folder: Folder, *, patience: float = 5.0) -> list[str]:
    """End what a killed `up` left running, and say what that was. Each leads its own process group."""
    left = {name: entry for name, entry in _written_down(folder).items() if entry.alive()}
    for entry in left.values():
        _signal(entry.pid, entry.stop)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(entry.alive() for entry in left.values()):
        time.sleep(0.02)
    for entry in left.values():
        kill_group(entry.pid)
    (folder.run / NAME).unlink(missing_ok=True)
    return sorted(left)


def kill_group(leader: int) -> None:
    """Kill whatever is left of a program: its helpers must not outlive it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _written_down(folder: Folder) -> dict[str, Entry]:
    try:
        kept = json.loads((folder.run / NAME).read_text(encoding="utf-8"))
        return {name: Entry(**entry) for name, entry in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
