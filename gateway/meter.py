"""What was answered, written down: spool first, then the running totals and the last ten seconds."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway import spool
from gateway.spool import Spool
from gateway.totals import MinuteKey, Record, Rows, Total, Totals

WINDOW_SECONDS = 10


class Window:
    """One endpoint's last ten seconds, by the second."""

    def __init__(self) -> None:
        self.seconds: deque[tuple[int, Total]] = deque()

    def add(self, record: Record) -> None:
        second = int(record.at)
        if not self.seconds or self.seconds[-1][0] != second:
            self.seconds.append((second, Total()))
            self.forget(second)
        self.seconds[-1][1].add(record)

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

    def record(self, record: Record) -> None:
        """Count one request; `record.at` comes from `now`. On disk when this returns, before the last byte."""
        self.spool.append(record)
        self.totals.add(record)
        window = self.windows.get(record.endpoint_id)
        if window is None:
            window = self.windows[record.endpoint_id] = Window()
        window.add(record)
        self.used[record.key_id] = record.at

    def dirty(self) -> list[Rows]:
        """The changed rows of every source this process answers for; clean from here, see `put_back`."""
        return [rows for totals in self._all_totals() if (rows := totals.take_dirty())]

    def put_back(self, batch: list[Rows]) -> None:
        by_source = {totals.source: totals for totals in self._all_totals()}
        for rows in batch:
            by_source[rows.source].put_back(rows)

    def written(self) -> None:
        """Let go of quarter hours that are over and written, in memory and on disk."""
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
        used, self.used = self.used, {}
        return used

    def unwritten(self) -> int:
        return sum(len(totals.dirty_minutes) + len(totals.dirty_quarters) for totals in self._all_totals())

    def windows_now(self, now: float) -> Iterator[tuple[int, Total]]:
        """The last ten seconds of every endpoint that had traffic in them."""
        for endpoint_id, window in list(self.windows.items()):
            if window.forget(now):
                del self.windows[endpoint_id]
            else:
                yield endpoint_id, window.total()

    def minute(self, now: float) -> dict[int, Total]:
        """The running minute by endpoint, over its revisions."""
        start, found = int(now) - int(now) % 60, dict[int, Total]()
        for key, total in self.totals.minutes.items():
            if is_of(key, start):
                found.setdefault(key[0], Total()).merge(total)
        return found

    def close(self) -> None:
        for other in [self.spool, *(other for other, _ in self.left)]:
            other.close()

    def _all_totals(self) -> list[Totals]:
        return [self.totals, *(totals for _, totals in self.left)]


def is_of(key: MinuteKey, start: int) -> bool:
    return key[2] == start
