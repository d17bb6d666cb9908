"""The times that charts show, cut into buckets that begin at the same moments for everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Range:
    """`step`: seconds of a bucket of traffic; `sample_step`: of a bucket of what instances use."""

    name: str
    label: str
    seconds: int
    step: int
    sample_step: int


RANGES: Mapping[str, Range] = {
    one.name: one
    for one in (
        Range("15m", "15 minutes", 900, 60, 15),
        Range("1h", "1 hour", 3600, 60, 60),
        Range("24h", "24 hours", 86400, 900, 900),
    )
}
DEFAULT = "15m"


@dataclass(frozen=True)
class Window:
    """A range that ends at a moment. Buckets begin at multiples of the step since 1970; the last one runs."""

    range: Range
    at: datetime

    @classmethod
    def named(cls, name: str, *, at: datetime) -> Window:
        """The window of that name, or the default one."""
        return cls(RANGES.get(name, RANGES[DEFAULT]), at)

    @property
    def start(self) -> datetime:
        """The beginning of the first bucket."""
        return self.buckets(self.range.step)[0]

    def buckets(self, step: int) -> list[datetime]:
        """The start of each bucket, oldest first."""
        last = aligned(self.at, step)
        count = self.range.seconds // step
        return [last - timedelta(seconds=step * back) for back in range(count, -1, -1)]


def aligned(at: datetime, step: int) -> datetime:
    """The start of the bucket in which a moment lies."""
    seconds = int(at.timestamp())
    return datetime.fromtimestamp(seconds - seconds % step, UTC)
