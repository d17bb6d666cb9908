"""Latency histograms that can be added up: the one shape every percentile of ours comes from.

Eight buckets an octave from 1 ms to 17.5 minutes, 160 in all. Bucket `i` is the half-open interval
`[BOUNDS[i], BOUNDS[i + 1])` in whole microseconds; what is shorter counts in the first, what is longer in
the last. A quantile is answered at the bucket's harmonic middle, 2ab/(a+b), whose relative error is
(b-a)/(b+a) on either side: 4.33 % at most with this spacing. Sum, count and maximum are kept exactly.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

PER_OCTAVE = 8
BUCKETS = 160
SHORTEST_US = 1_000
BOUNDS: tuple[int, ...] = tuple(round(SHORTEST_US * 2 ** (i / PER_OCTAVE)) for i in range(BUCKETS + 1))


def bucket_of(microseconds: int) -> int:
    """The index of the bucket that counts this duration; every integer has one."""
    return min(max(bisect_right(BOUNDS, microseconds) - 1, 0), BUCKETS - 1)


@dataclass(slots=True)
class Histogram:
    """Counts by bucket; only used buckets are held, so an idle endpoint's costs almost nothing."""

    count: int = 0
    sum_us: int = 0
    max_us: int = 0
    buckets: dict[int, int] = field(default_factory=dict)

    @classmethod
    def stored(cls, first: int, counts: Sequence[int], *, count: int, sum_us: int, max_us: int) -> Self:
        """Back from the stored slice: `counts[i]` belongs to bucket `first + i`."""
        if first < 0 or first + len(counts) > BUCKETS:
            raise ValueError(f"buckets {first} to {first + len(counts)} lie outside 0 to {BUCKETS}")
        if sum(counts) != count:
            raise ValueError(f"the slice counts {sum(counts)}, the total beside it {count}")
        used = {first + i: n for i, n in enumerate(counts) if n}
        return cls(count=count, sum_us=sum_us, max_us=max_us, buckets=used)

    def add(self, microseconds: int) -> None:
        """Count one duration; a negative one (a clock that was set back) counts as zero."""
        microseconds = max(microseconds, 0)
        bucket = bucket_of(microseconds)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.sum_us += microseconds
        self.max_us = max(self.max_us, microseconds)

    def merge(self, other: "Histogram") -> None:
        """Take the other's counts in; the other is left as it was."""
        for bucket, n in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + n
        self.count += other.count
        self.sum_us += other.sum_us
        self.max_us = max(self.max_us, other.max_us)

    def slice(self) -> tuple[int, list[int]]:
        """`(first, counts)` from the first used bucket to the last; `(0, [])` when empty."""
        if not self.buckets:
            return 0, []
        first, last = min(self.buckets), max(self.buckets)
        return first, [self.buckets.get(i, 0) for i in range(first, last + 1)]

    def quantile(self, q: float) -> int | None:
        """The duration in microseconds a share `q` of all stayed within; None when nothing was counted."""
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
        if not self.count:
            return None
        rank, seen = max(q * self.count, 1), 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return min(middle(bucket), self.max_us)
        return self.max_us

    def mean(self) -> int | None:
        """The exact mean in microseconds; None when nothing was counted."""
        return round(self.sum_us / self.count) if self.count else None

    def as_json(self) -> dict[str, int | list[int]]:
        """The shape that travels: `{"first", "counts", "count", "sum_us", "max_us"}`."""
        first, counts = self.slice()
        return {
            "first": first,
            "counts": counts,
            "count": self.count,
            "sum_us": self.sum_us,
            "max_us": self.max_us,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, int | list[int]]) -> Self:
        """Back from `as_json`; ValueError when a part is missing or contradicts another."""
        try:
            first, counts = data["first"], data["counts"]
            count, sum_us, max_us = data["count"], data["sum_us"], data["max_us"]
        except KeyError as missing:
            raise ValueError(f"a histogram without {missing}") from missing
        if not isinstance(counts, list) or not (
            isinstance(first, int)
            and isinstance(count, int)
            and isinstance(sum_us, int)
            and isinstance(max_us, int)
        ):
            raise ValueError("a histogram is made of whole numbers and one list of them")  # noqa: TRY004
        return cls.stored(first, counts, count=count, sum_us=sum_us, max_us=max_us)


def middle(bucket: int) -> int:
    """The harmonic middle of a bucket in microseconds: the same relative error to either side."""
    low, high = BOUNDS[bucket], BOUNDS[bucket + 1]
    return round(2 * low * high / (low + high))


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """The sum of many, none of them changed."""
    total = Histogram()
    for histogram in histograms:
        total.merge(histogram)
    return total
