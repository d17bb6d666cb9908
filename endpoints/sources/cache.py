"""How full the store is, and making room in it: what was used longest ago goes first, what is in use stays.

A unit is a folder that a source fetched at one pinned revision, such as hub/<model>/<commit>. Its files are
links to blobs; a blob goes when its last name does. When a unit was used last is the time of its folder: `claim`
sets it, under the lock that removing holds too, so that neither can miss the other.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from endpoints.sources import store as storage

GRACE: Final = 3600.0  # seconds for which what was just used or fetched is left alone
PARTIAL_LASTS: Final = 7 * 86400.0  # seconds after which a download that nobody goes on with is given up
FLOOR: Final = 1 << 30  # bytes of the disk that are kept free, with or without a limit
OWN: Final = frozenset({"blobs", "partial", "locks", "known", "verified", "removed"})  # the store's own folders
KEPT: Final = frozenset({"named", "registry"})  # the registry's versions
SHALLOW: Final = KEPT | {"repositories"}  # what Git fetches from is fetched again when it is needed
SHALLOW_DEPTH, USUAL_DEPTH = 2, 3  # parts of a unit's path


@dataclass(frozen=True)
class Unit:
    """What is kept or removed as a whole. `path` is relative to the store, `size` what its files have together."""

    path: str
    size: int
    used_at: float
    inodes: frozenset[int]

    @property
    def evictable(self) -> bool:
        return self.path.split("/", maxsplit=1)[0] not in KEPT


@dataclass(frozen=True)
class Survey:
    """The store as it is: bytes of every file once, its units, and bytes free on the disk."""

    size: int
    units: tuple[Unit, ...]
    free: int


def unit_of(store: Path, path: Path) -> str:
    """The unit that a path lies in; "" if it lies in none."""
    try:
        parts = path.absolute().relative_to(store.absolute()).parts
    except ValueError:
        return ""
    if not parts or parts[0] in OWN:
        return ""
    depth = _depth(parts[0])
    return "/".join(parts[:depth]) if len(parts) >= depth else ""


def claim(store: Path, path: Path) -> None:
    """Say that the unit of this path is used now; makes its folder if it isn't there yet."""
    if not (unit := unit_of(store, path)):
        return
    with storage.locked(store, _lock(unit)):
        (store / unit).mkdir(parents=True, exist_ok=True)
        os.utime(store / unit)


def survey(store: Path) -> Survey:
    """Walks the whole store: a second or so for a hundred thousand files."""
    sizes: dict[int, int] = {}
    units = []
    for top in _folders(store):
        if top.name in OWN:
            sizes |= files_in(top)
        else:
            for folder in _at_depth(top, _depth(top.name) - 1):
                found = files_in(folder)
                sizes |= found
                path = str(folder.relative_to(store))
                units.append(Unit(path, sum(found.values()), _used_at(folder), frozenset(found)))
    free = shutil.disk_usage(store).free if store.exists() else 0
    return Survey(sum(sizes.values()), tuple(sorted(units, key=lambda unit: unit.used_at)), free)


def make_room(
    store: Path, *, limit: int, in_use: Collection[str], floor: int = FLOOR, now: float | None = None
) -> list[Unit]:
    """Remove units that nobody uses until the store has `limit` bytes at most (0: any) and the disk `floor` free.

    `in_use` are units by their paths. Answers what was removed, which may be too little.
    """
    now = time.time() if now is None else now
    seen, removed = survey(store), list[Unit]()
    size, free = seen.size, seen.free
    for unit in seen.units:
        over = max(size - limit if limit else 0, floor - free)
        if over <= 0:
            break
        if not unit.evictable or unit.path in in_use or now - unit.used_at < GRACE:
            continue
        if not _remove_unless_used(store, unit, now):
            continue
        removed.append(unit)
        seen = survey(store)
        size, free = seen.size, seen.free
    return removed


def tidy(store: Path, now: float | None = None) -> None:
    """Remove what nobody can use any more: blobs without a name, downloads long left, halves of removals."""
    now = time.time() if now is None else now
    for half in _folders(store / "removed"):
        shutil.rmtree(half, ignore_errors=True)
    for blob in list((store / "blobs").glob("??/*")):
        free_blob(store, blob.name, before=now - GRACE)
    for partial in list((store / "partial").glob("*")):
        with suppress(FileNotFoundError):
            if now - partial.stat().st_mtime > PARTIAL_LASTS:
                with storage.locked(store, partial.name):
                    partial.unlink()


def remove(store: Path, folder: Path) -> None:
    """Take a folder out of the store, at once for whoever looks, and the blobs that only it named."""
    aside = store / "removed" / uuid.uuid4().hex
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    inodes = files_in(aside)
    for file in aside.rglob("*"):
        storage.forget(folder / file.relative_to(aside), store)
    shutil.rmtree(aside, ignore_errors=True)
    for blob in list((store / "blobs").glob("??/*")):
        with suppress(FileNotFoundError):
            if blob.stat().st_ino in inodes:
                free_blob(store, blob.name)


def free_blob(store: Path, sha256: str, *, before: float | None = None) -> None:
    """Delete a blob that has no other name left; with `before`, one that lost its last before then."""
    with storage.locked(store, sha256), suppress(FileNotFoundError):
        blob = storage.blob_path(store, sha256)
        found = blob.stat()
        if found.st_nlink == 1 and (before is None or found.st_ctime < before):
            blob.unlink()
            storage.forget(blob, store)


def _remove_unless_used(store: Path, unit: Unit, now: float) -> bool:
    with storage.locked(store, _lock(unit.path)):
        folder = store / unit.path
        if not folder.exists() or now - _used_at(folder) < GRACE:
            return False
        remove(store, folder)
    return True


def _depth(top: str) -> int:
    return SHALLOW_DEPTH if top in SHALLOW else USUAL_DEPTH


def _lock(unit: str) -> str:
    return f"unit-{storage.key_of(unit)}"


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:
        return []


def _at_depth(top: Path, depth: int) -> Iterator[Path]:
    if depth == 0:
        yield top
        return
    for folder in _folders(top):
        yield from _at_depth(folder, depth - 1)


def files_in(folder: Path) -> dict[int, int]:
    """Inode and size of every file beneath; others may be at work there."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                seen = os.lstat(os.path.join(parent, name))
                if stat.S_ISREG(seen.st_mode):
                    found[seen.st_ino] = seen.st_size
    return found
