"""What was answered, written down: spool first, then the running totals and the last ten seconds."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway import spool
from gateway.ended import Ended
from gateway.spool import Spool
from gateway.totals import MinuteKey, Rows, Total, Totals

WINDOW_SECONDS = 10
AT_ONCE = 128  # requests that are added up together: less than half a millisecond


class Window:
    """One endpoint's last ten seconds, by the second."""

    def __init__(self) -> None:
        self.seconds: deque[tuple[int, Total]] = deque()

    def merge(self, second: int, part: Total) -> None:
        """Take in what ended in this second, none of whose predecessors comes after it."""
        if not self.seconds or self.seconds[-1][0] != second:
            self.seconds.append((second, Total()))
            self.forget(second)
        self.seconds[-1][1].merge(part)

    def forget(self, now: float) -> bool:
        """Let go of what is older than the window; True when nothing is left."""
        while self.seconds and self.seconds[0][0] <= int(now) - WINDOW_SECONDS:
            self.seconds.popleft()
        return not self.seconds

    def total(self) -> Total:
        total = Total()
        for _, part in self.seconds:
            total.merge(part)
        return total


class Meter:
    """The one place where an answered request counts.

    Its time never falls before `floor`: a record of a bucket that was already written and forgotten would
    replace the whole row by itself.
    """

    def __init__(self, own: Spool, left: list[Spool], *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.spool = own
        self.totals = Totals(own.source)
        self.left = [(other, Totals(other.source)) for other in left]
        self.windows: dict[int, Window] = {}
        self.pending: list[Ended] = []  # written down, and not added up yet
        self.listeners: list[Callable[[Sequence[Ended]], None]] = []  # told of every request, some at a time
        self.used: dict[int, float] = {}
        self.replayed = 0
        self.floor = own.floor
        for other, totals in [(own, self.totals), *self.left]:
            for record in other.replay():
                totals.add(record)
                self.replayed += 1

    @classmethod
    def open(cls, folder: Path) -> "Meter":
        """Claim a source under `folder` and take up what it, and other ended processes, left. Raises OSError."""
        return cls(*spool.claim(folder))

    def now(self) -> float:
        return max(self.clock(), self.floor)

    def record(self, ended: Ended) -> None:
        """Count one request; its `at` comes from `now`. On disk when this returns, before the last byte."""
        self.spool.append(ended.record)
        self.pending.append(ended)
        if len(self.pending) >= AT_ONCE:
            self.fold()

    def fold(self) -> None:
        """Add up what was only written down so far: many at once cost a third of each by itself."""
        if not self.pending:
            return
        batch, self.pending = self.pending, []
        parts: dict[tuple[int, int, int], Total] = {}
        for ended in batch:
            record = ended.record
            key = record.endpoint_id, record.revision_id, int(record.at)
            part = parts.get(key)
            if part is None:
                part = parts[key] = Total()
            part.add(record)
            self.totals.add_key(record)
            if record.key_id is not None:
                self.used[record.key_id] = record.at
        for (endpoint_id, revision_id, second), part in parts.items():
            self.totals.merge(endpoint_id, revision_id, second, part)
            self.windows.setdefault(endpoint_id, Window()).merge(second, part)
        for tell in self.listeners:
            tell(batch)

    def dirty(self) -> list[Rows]:
        """The changed rows of every source this process answers for; clean from here, see `put_back`."""
        self.fold()
        return [rows for totals in self._all_totals() if (rows := totals.take_dirty())]

    def put_back(self, batch: list[Rows]) -> None:
        by_source = {totals.source: totals for totals in self._all_totals()}
        for rows in batch:
            by_source[rows.source].put_back(rows)

    def written(self) -> None:
        """Let go of quarter hours that are over and written, in memory and on disk."""
        self.fold()
        self.floor = max(self.floor, self.totals.written_up_to(self.now()))
        self.totals.drop(self.floor)
        self.spool.clear(self.floor)
        unwritten = []
        for other, totals in self.left:
            if totals.dirty_minutes or totals.dirty_quarters:
                unwritten.append((other, totals))
            else:
                other.destroy()
        self.left = unwritten

    def take_used(self) -> dict[int, float]:
        self.fold()
        used, self.used = self.used, {}
        return used

    def unwritten(self) -> int:
        self.fold()
        return sum(len(totals.dirty_minutes) + len(totals.dirty_quarters) for totals in self._all_totals())

    def windows_now(self, now: float) -> Iterator[tuple[int, Total]]:
        """The last ten seconds of every endpoint that had traffic in them."""
        self.fold()
        for endpoint_id, window in list(self.windows.items()):
            if window.forget(now):
                del self.windows[endpoint_id]
            else:
                yield endpoint_id, window.total()

    def minute(self, now: float) -> dict[int, Total]:
        """The running minute by endpoint, over its revisions."""
        self.fold()
        start, found = int(now) - int(now) % 60, dict[int, Total]()
        for key, total in self.totals.minutes.items():
            if is_of(key, start):
                found.setdefault(key[0], Total()).merge(total)
        return found

    def close(self) -> None:
        self.fold()
        for other in [self.spool, *(other for other, _ in self.left)]:
            other.close()

    def _all_totals(self) -> list[Totals]:
        return [self.totals, *(totals for _, totals in self.left)]


def is_of(key: MinuteKey, start: int) -> bool:
    return key[2] == start
