"""Answered requests on local disk, so that a killed gateway forgets none.

One folder per source, one living process per folder (a lock file says which). A record is one line, copied
into a mapped file before the last byte of the answer leaves: a client never holds an answer that the next
start can't read back. The file's room on the disk is reserved first, so that a full disk is an error here and
no signal there. Files ("segments") belong to one quarter hour and one process; they go when their quarter is
over and all their rows are in the database. The kernel keeps a killed process's mapped pages; a power cut may
cost the seconds since the last database flush.
"""

import contextlib
import fcntl
import mmap
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import orjson

from gateway.totals import QUARTER, Record

SUFFIX = ".spool"
SEGMENT_BYTES = 4 * 2**20  # some 40,000 records
FLOOR = "floor"
LOCK = "lock"


class Spool:
    """The folder of one source, held by this process. Its name is the source's id in the database."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self.source = folder.name
        self.lock = lock
        self.failures = 0
        self.problem = ""
        self.floor = _floor(folder)
        self._quarter = 0
        self._map: mmap.mmap | None = None
        self._file = -1
        self._used = 0  # bytes of the segment

    def append(self, record: Record) -> None:
        """Write one record. A disk that refuses is counted and remembered, never raised: traffic goes on."""
        line = encode(record)
        used = self._used + len(line)
        if self._map is None or used > SEGMENT_BYTES or not 0 <= record.at - self._quarter < QUARTER:
            try:
                self._open(quarter_of(record.at))
            except OSError as refused:
                self.failed(refused.strerror or str(refused))
                return
            used = len(line)
        self._map[self._used : used] = line  # type: ignore[index]  # opened above
        self._used = used
        self.problem = ""

    def failed(self, why: str) -> None:
        self.failures += 1
        self.problem = why

    def replay(self) -> Iterator[Record]:
        """Everything that segments of this folder hold; what an earlier process began to remove is left out."""
        for path in sorted(self.folder.glob("*" + SUFFIX)):
            if segment_quarter(path) < self.floor:
                path.unlink()
                continue
            for line in path.read_bytes().rstrip(b"\0").split(b"\n"):
                record = decode(line)
                if record is not None:
                    yield record

    def clear(self, before: int) -> None:
        """Remove the segments of quarters that started before `before`; their rows are in the database.

        The floor is written first, so that a kill halfway can't leave half a quarter to be replayed.
        """
        old = [path for path in self.folder.glob("*" + SUFFIX) if segment_quarter(path) < before]
        if not old:
            return
        fresh = self.folder / (FLOOR + ".new")
        fresh.write_text(str(before))
        fresh.replace(self.folder / FLOOR)
        self.floor = before
        for path in old:
            path.unlink()

    def close(self) -> None:
        self._end_segment()
        self._quarter = 0
        os.close(self.lock)

    def destroy(self) -> None:
        """Remove the whole folder, lock last: the source's id is never used again."""
        shutil.rmtree(self.folder)
        self.close()

    def _open(self, quarter: int) -> None:
        """A fresh segment with room of its own. OSError if the disk has none; what was open is closed then."""
        self._end_segment()
        path = self.folder / f"{quarter}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            reserve(file, SEGMENT_BYTES)
            self._map = mmap.mmap(file, SEGMENT_BYTES)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        self._file, self._quarter = file, quarter

    def _end_segment(self) -> None:
        """Let go of the open segment and of the room that it did not use."""
        if self._map is not None:
            self._map.close()
            with contextlib.suppress(OSError):  # then it keeps its zeros, which replay passes over
                os.ftruncate(self._file, self._used)
            os.close(self._file)
        self._map, self._file, self._used = None, -1, 0


def reserve(file: int, size: int) -> None:
    """Have the disk promise this room; OSError if it can't."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.write(file, bytes(size))


def claim(root: Path) -> tuple[Spool, list[Spool]]:
    """This process's own folder, and those that ended processes left with something in them.

    The own one is the first free folder, else a new one. Of the rest, the caller replays and destroys.
    """
    root.mkdir(parents=True, exist_ok=True)
    free = [spool for folder in sorted(root.iterdir()) if (spool := _held(folder)) is not None]
    if free:
        return free[0], free[1:]
    folder = root / uuid.uuid4().hex[:12]
    folder.mkdir()
    own = _held(folder)
    if own is None:
        return claim(root)  # another start was quicker to take the folder just made
    return own, []


def _held(folder: Path) -> Spool | None:
    """The folder, locked for this process; None while another process lives in it, or when it is gone."""
    path = folder / LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(lock).st_ino:
            return Spool(folder, lock)
    except (BlockingIOError, FileNotFoundError):
        pass  # somebody lives there, or removed it between our two looks
    os.close(lock)
    return None


def encode(record: Record) -> bytes:
    return orjson.dumps([*record]) + b"\n"


def decode(line: bytes) -> Record | None:
    """The record of one line; None for an empty one and for what a full disk or a power cut left torn."""
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(values, list) or len(values) != len(Record._fields):
        return None
    return Record(*values)


def quarter_of(at: float) -> int:
    second = int(at)
    return second - second % QUARTER


def segment_quarter(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _floor(folder: Path) -> int:
    try:
        return int((folder / FLOOR).read_text())
    except FileNotFoundError:
        return 0
