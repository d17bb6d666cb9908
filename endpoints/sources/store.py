"""The models on this machine, each file once, by the digest of what is in it.

blobs/ab/<sha256>        what was verified; never changed afterwards
partial/<key>            a download that goes on where it ended
named/<id>/<file name>   hard links to blobs under the name people know the file by
locks/<key>.lock         one process at a time works on one file (flock: freed when its holder dies)
known/<key>              the digest of what a source holds under that key, where it declares none itself
verified/<key>.json      which file on disk had which digest, so that it is computed once
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from endpoints.sources.base import SourceProblem

PIECE: Final = 1 << 20
SPARE: Final = 64 << 20  # left free on the disk for everything else
LOOK_AGAIN: Final = 0.1
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class StoredFile:
    """A file in the store. `path` is absolute."""

    path: Path
    size: int
    sha256: str


def blob_path(store: Path, sha256: str) -> Path:
    return store / "blobs" / sha256[:2] / sha256


def partial_path(store: Path, key: str) -> Path:
    return store / "partial" / key


def size_of(path: Path) -> int:
    """Bytes there now, 0 if the file is not (or no longer) there: others may be at work on it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def key_of(*parts: str) -> str:
    """A file name for any text."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def import_file(source: Path, store: Path, *, name: str = "") -> StoredFile:
    """Bring a local file into the store: a hard link where the disk allows, else a copy. Idempotent.

    The file must not be changed in place afterwards: it shares its bytes with the store.
    """
    sha256 = digest(source, store)
    blob = blob_path(store, sha256)
    with locked(store, sha256):
        if not blob.exists():
            _link_or_copy(source, blob, store)
    path = store / "named" / sha256[:16] / (name or source.name)
    link(blob, path)
    return StoredFile(path, path.stat().st_size, sha256)


def link(blob: Path, path: Path) -> None:
    """Make `path` a hard link to `blob`, whatever was there before, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.samefile(blob):
        return
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    os.link(blob, fresh)
    fresh.replace(path)


def keep(partial: Path, store: Path, sha256: str) -> Path:
    """Turn a finished, verified download into a blob."""
    blob = blob_path(store, sha256)
    blob.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # the name must not survive a power cut that the bytes don't
    except OSError:  # nobody knows which of them the disk has
        partial.unlink()
        raise
    partial.replace(blob)
    remember(blob, store, sha256)
    return blob


def remember_key(store: Path, key: str, sha256: str) -> None:
    """That the bytes a source holds under `key` have this digest."""
    path = store / "known" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{key}.{uuid.uuid4().hex}")
    fresh.write_text(sha256)
    fresh.replace(path)


def known_key(store: Path, key: str) -> str:
    """The digest that was remembered for this key; "" if none was."""
    try:
        return (store / "known" / key).read_text()
    except FileNotFoundError:
        return ""


def digests(store: Path, paths: Sequence[Path]) -> dict[Path, str]:
    """Of each of these files. Those that are links to blobs are called as their blobs are; others are read."""
    blobs = {}
    for blob in (store / "blobs").glob("??/*"):
        with suppress(FileNotFoundError):
            blobs[blob.stat().st_ino] = blob.name
    return {path: blobs.get(path.stat().st_ino) or digest(path, store) for path in paths}


def digest(path: Path, store: Path, progress: Callable[[int], None] | None = None) -> str:
    """The file's sha256, computed once for as long as its size, time and inode stay the same."""
    marker = store / "verified" / f"{key_of(str(path.absolute()))}.json"
    stamp = _stamp(path)
    known = _marked(marker)
    if known and known[0] == stamp:
        return known[1]
    sha256 = _sha256(path, progress)
    if _stamp(path) == stamp:  # else it changed while it was read: don't remember
        remember(path, store, sha256)
    return sha256


def is_verified(path: Path, store: Path, sha256: str) -> bool:
    """Whether the file was found to have this digest before and hasn't changed since. Reads no content."""
    known = _marked(store / "verified" / f"{key_of(str(path.absolute()))}.json")
    return known is not None and path.is_file() and known == (_stamp(path), sha256)


def require_space(store: Path, wanted: int, what: str) -> None:
    """SourceProblem("disk_full") unless this many bytes more fit on the store's disk."""
    store.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(store).free - SPARE
    if wanted > free:
        raise SourceProblem(
            "disk_full",
            f"{what} needs {readable(wanted)} more on disk; {readable(max(0, free))} are free where models lie. "
            "Free some space, or choose a smaller file.",
            "file",
        )


@contextmanager
def room_found() -> Iterator[None]:
    """SourceProblem("disk_full") when the disk runs full in the middle."""
    try:
        yield
    except OSError as refused:
        if refused.errno not in FULL:
            raise
        said = "The disk ran full while the model was fetched. Free some space, and try again: what came is kept."
        raise SourceProblem("disk_full", said) from None


@contextmanager
def locked(store: Path, key: str, waiting: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold the lock of this key; while another process has it, call `waiting` (it may raise to give up).

    The descriptor can be handed to a process that is started, which then holds it too for as long as it lives.
    """
    path = store / "locks" / f"{key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        while not _try_lock(handle):
            if waiting:
                waiting()
            time.sleep(LOOK_AGAIN)
        yield handle
    finally:
        os.close(handle)


def readable(size: int) -> str:
    """1.5 GiB, 340 MiB, 12 KiB."""
    for unit, bytes_each in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= bytes_each:
            return f"{size / bytes_each:.3g} {unit}"
    return f"{size} bytes"


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _link_or_copy(source: Path, blob: Path, store: Path) -> None:
    blob.parent.mkdir(parents=True, exist_ok=True)
    fresh = blob.with_name(f"{blob.name}.{uuid.uuid4().hex}")
    try:
        os.link(source.resolve(), fresh)
    except OSError as refused:
        if refused.errno not in {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP}:
            raise
        require_space(store, source.stat().st_size, source.name)
        shutil.copyfile(source, fresh)
    fresh.replace(blob)


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _marked(marker: Path) -> tuple[list[int], str] | None:
    try:
        data = json.loads(marker.read_text())
        return list(data["stamp"]), str(data["sha256"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def remember(path: Path, store: Path, sha256: str) -> None:
    """This file, as it is now, was found to have this digest."""
    marker = store / "verified" / f"{key_of(str(path.absolute()))}.json"
    marker.parent.mkdir(parents=True, exist_ok=True)
    fresh = marker.with_name(f"{marker.name}.{uuid.uuid4().hex}")
    fresh.write_text(json.dumps({"stamp": _stamp(path), "sha256": sha256}))
    fresh.replace(marker)


def forget(path: Path, store: Path) -> None:
    """The file is gone: what it was found to have need not be kept."""
    (store / "verified" / f"{key_of(str(path.absolute()))}.json").unlink(missing_ok=True)


def _sha256(path: Path, progress: Callable[[int], None] | None) -> str:
    found, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
            done += len(piece)
            if progress:
                progress(done)
    return found.hexdigest()
