"""Models in a folder that the machines of a cluster share, each in a folder of its own: making room for one more.

Only who has the folder mounted can make room in it, and in a cluster those are pods alone. So a fetch that finds
the disk full does it itself: one model after another goes, what was started longest ago first, until it fits.

What is in use is told by the console in a file: the models that were mounted by whatever may start a pod, and the
moment at which that was looked at. A model goes only if the list doesn't name it and it was last started GRACE
before that moment. So a list may be as old as it likes, and of two that are written at once either may win: what
mounts a model is made before its pods are, and their fetch marks the model's time first of all. A pod that the
list doesn't know was therefore made after it, and its model was started later than the list allows. GRACE is for
clocks that differ, the console's and the disk's. Without a list nothing goes.

Marking, fetching and removing hold the model's lock, which lies outside of what is removed: one that is being
fetched can't go, and one that has just gone is fetched anew. Those who remove take turns, and pass over a lock
that is held.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from endpoints.sources import cache
from endpoints.sources import store as storage
from endpoints.sources.base import SourceProblem
from endpoints.sources.store import readable

GRACE: Final = 600.0  # seconds before the list was made for which what was started stays in any case
OWN: Final = ".tir"  # beside the models: locks, and what is on its way out
MODEL: Final = re.compile(r"[0-9a-f]{32}")  # a model's folder; whatever else lies there is left alone


@dataclass(frozen=True)
class InUse:
    """The models that may be started at a moment (seconds since 1970)."""

    at: float
    models: frozenset[str]


@dataclass(frozen=True)
class Room:
    """How full the disk was after a fetch, in bytes, and what had to go for it."""

    total: int
    free: int
    models: int
    size: int
    removed: int = 0
    removed_size: int = 0


class Busy(Exception):
    """Somebody holds this model's lock."""


class Shared:
    """The folder of one model, `into`, among the others beside it. `listed`: the file of what is in use."""

    def __init__(self, into: Path, listed: Path) -> None:
        self.into, self.root, self.listed = into, into.parent, listed
        self.home = self.root / OWN
        self.removed: list[cache.Unit] = []

    def bring(self, fetch: Callable[[], Path], size: int, waiting: Callable[[], None]) -> Path:
        """What `fetch` answers, with others gone as far as needed. `size` is the model's, 0 if that is not known.

        SourceProblem("disk_full") if it doesn't fit though all went that may; if that shows before, nothing goes.
        """
        while True:
            try:
                (self.home / "removed").mkdir(parents=True, exist_ok=True)
                with storage.locked(self.home, self.into.name, waiting):
                    self._mark()
                    path = fetch()
                    self._mark()  # a fetch may have taken hours
                    return path
            except (SourceProblem, OSError) as refused:
                if not _is_full(refused):
                    raise
                self._make_room(size, waiting)

    def room(self) -> Room:
        """As it is now."""
        disk, units = shutil.disk_usage(self.root), self._units()
        gone = sum(unit.size for unit in self.removed)
        size = sum(unit.size for unit in units)
        return Room(disk.total, disk.free, len(units), size, len(self.removed), gone)

    def _mark(self) -> None:
        self.into.mkdir(exist_ok=True)
        os.utime(self.into)

    def _make_room(self, size: int, waiting: Callable[[], None]) -> None:
        """Have the model that was started longest ago go, of those that may."""
        with storage.locked(self.home, "room", waiting):
            for half in (self.home / "removed").iterdir():
                shutil.rmtree(half, ignore_errors=True)
            idle = [unit for unit in self._units() if self._may_go(unit.path, unit.used_at)]
            missing, could_go = max(0, size - self._here()), sum(unit.size for unit in idle)
            if missing + storage.SPARE <= shutil.disk_usage(self.root).free + could_go:
                for unit in idle:
                    if self._remove(unit):
                        self.removed.append(unit)
                        return
            self._refuse(missing, could_go)

    def _remove(self, unit: cache.Unit) -> bool:
        folder, aside = self.root / unit.path, self.home / "removed" / uuid.uuid4().hex
        try:
            with storage.locked(self.home, unit.path, _give_up):
                if not self._may_go(unit.path, folder.stat().st_mtime):
                    return False
                folder.rename(aside)
        except (Busy, FileNotFoundError, PermissionError):  # the last: root made it, so it is no fetch's
            return False
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def _may_go(self, model: str, started: float) -> bool:
        in_use = read(self.listed)
        if in_use is None or model == self.into.name or model in in_use.models:
            return False
        return started < in_use.at - GRACE

    def _refuse(self, missing: int, could_go: int) -> NoReturn:
        disk, in_use = shutil.disk_usage(self.root), read(self.listed)
        wanted = f"{readable(missing)} more, with {readable(storage.SPARE)} to spare" if missing else "more"
        why = "Nothing there may go, as the console hasn't told yet what is in use."
        if in_use is not None:
            since = datetime.fromtimestamp(in_use.at - GRACE, UTC)
            part = f"Only {readable(could_go)} of what lies there" if could_go else "Nothing of what lies there"
            why = f"{part} may go; the rest is in use, was started since {since:%H:%M} UTC or is no model."
        raise SourceProblem(
            "disk_full",
            f"The region's cache of models is full: {readable(disk.free)} of {readable(disk.total)} are free, and "
            f"this model needs {wanted}. {why} Stop endpoints of large models, or give the claim more storage.",
        )

    def _here(self) -> int:
        return sum(cache.files_in(self.into).values())

    def _units(self) -> list[cache.Unit]:
        """The models that lie here, the one started longest ago first."""
        found = []
        for folder in self.root.iterdir():
            if MODEL.fullmatch(folder.name):
                with suppress(FileNotFoundError):
                    files, used_at = cache.files_in(folder), folder.stat().st_mtime
                    found.append(cache.Unit(folder.name, sum(files.values()), used_at, frozenset(files)))
        return sorted(found, key=lambda unit: unit.used_at)


def read(listed: Path) -> InUse | None:
    """What the console told; None if it didn't, or not yet."""
    try:
        told = json.loads(listed.read_text())
    except FileNotFoundError:
        return None
    return InUse(float(told["at"]), frozenset(told["models"]))


def written(models: frozenset[str], at: float | None = None) -> str:
    """The same as text. `at` is a moment before it was looked which they are."""
    return json.dumps({"at": time.time() if at is None else at, "models": sorted(models)})


def _is_full(refused: SourceProblem | OSError) -> bool:
    if isinstance(refused, SourceProblem):
        return refused.code == "disk_full"
    return refused.errno in storage.FULL


def _give_up() -> None:
    raise Busy
