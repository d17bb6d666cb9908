"""Running totals of what was answered: pure arithmetic over records, the clock is in the records.

Two sets. By (endpoint, revision, minute), with status classes and two histograms, for charts. By (endpoint,
revision, key, status class, quarter hour), without histograms, for billing. A row always holds the whole
total of its bucket, so writing it again replaces and never adds.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from monitoring.histogram import Histogram

MINUTE = 60
QUARTER = 900
SWITCHED = 101  # a websocket, whose life says nothing of how quick answers are
OK, CLIENT_ERROR, ABORTED, SERVER_ERROR = "2xx", "4xx", "499", "5xx"

MinuteKey = tuple[int, int, int]
"""(endpoint, revision, start of the minute in seconds since 1970)"""
UNBILLED = -1  # instead of a key's id: it is seen in charts, and billed elsewhere or not at all
QuarterKey = tuple[int, int, int | None, str, int]
"""(endpoint, revision, API key or None, status class, start of the quarter hour in seconds since 1970)"""


class Record(NamedTuple):
    """One answered request. `at` is when it ended, in seconds since 1970; durations are in microseconds.

    `key_id` is None for what a person called by themselves, without a key.
    `ttft_us` is None where no token came (and for answers that were no stream).
    """

    at: float
    endpoint_id: int
    revision_id: int
    key_id: int | None
    status: int
    latency_us: int
    ttft_us: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def status_class(self) -> str:
        return class_of(self.status)


def class_of(status: int) -> str:
    """2xx, 4xx, 499 (the client left) or 5xx. What a container of the user's own says besides, such as a redirect,
    is an answer like others; whatever no client should ever see counts as ours."""
    if 100 <= status < 400:
        return OK
    if status == 499:
        return ABORTED
    return CLIENT_ERROR if 400 <= status < 500 else SERVER_ERROR


@dataclass(slots=True)
class Total:
    """Sums over records: of a minute, of ten seconds, of anything."""

    requests: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    latency: Histogram = field(default_factory=Histogram)
    ttft: Histogram = field(default_factory=Histogram)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated_tokens: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, record: Record) -> None:
        name = record.status_class
        self.requests += 1
        self.classes[name] = self.classes.get(name, 0) + 1
        if record.status != SWITCHED:
            self.latency.add(record.latency_us)
        if record.ttft_us is not None:
            self.ttft.add(record.ttft_us)
        self.prompt_tokens += record.prompt_tokens
        self.completion_tokens += record.completion_tokens
        if record.estimated:
            self.estimated_tokens += record.prompt_tokens + record.completion_tokens
        self.bytes_in += record.bytes_in
        self.bytes_out += record.bytes_out

    def merge(self, other: "Total") -> None:
        self.requests += other.requests
        for name, n in other.classes.items():
            self.classes[name] = self.classes.get(name, 0) + n
        self.latency.merge(other.latency)
        self.ttft.merge(other.ttft)
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.estimated_tokens += other.estimated_tokens
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out


@dataclass(slots=True)
class KeyTotal:
    """What one key used of one revision in a quarter hour. Estimated tokens are among the others."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated_tokens: int = 0

    def add(self, record: Record) -> None:
        self.requests += 1
        self.prompt_tokens += record.prompt_tokens
        self.completion_tokens += record.completion_tokens
        if record.estimated:
            self.estimated_tokens += record.prompt_tokens + record.completion_tokens


@dataclass(frozen=True)
class Rows:
    """What changed since the last flush, each as the whole total of its bucket."""

    source: str
    minutes: dict[MinuteKey, Total]
    quarters: dict[QuarterKey, KeyTotal]

    def __bool__(self) -> bool:
        return bool(self.minutes or self.quarters)


class Totals:
    """The running totals of one source, and which of them the database has not seen yet.

    The running quarter hour stays whole in memory; `drop` forgets what is over and written.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.minutes: dict[MinuteKey, Total] = {}
        self.quarters: dict[QuarterKey, KeyTotal] = {}
        self.dirty_minutes: set[MinuteKey] = set()
        self.dirty_quarters: set[QuarterKey] = set()

    def add(self, record: Record) -> None:
        part = Total()
        part.add(record)
        self.merge(record.endpoint_id, record.revision_id, int(record.at), part)
        self.add_key(record)

    def merge(self, endpoint_id: int, revision_id: int, second: int, part: Total) -> None:
        """Take in what ended in this second."""
        key = endpoint_id, revision_id, second - second % MINUTE
        total = self.minutes.get(key)
        if total is None:
            total = self.minutes[key] = Total()
        total.merge(part)
        self.dirty_minutes.add(key)

    def add_key(self, record: Record) -> None:
        """Count what a key used."""
        if record.key_id == UNBILLED:
            return
        second = int(record.at)
        quarter = (
            record.endpoint_id,
            record.revision_id,
            record.key_id,
            record.status_class,
            second - second % QUARTER,
        )
        used = self.quarters.get(quarter)
        if used is None:
            used = self.quarters[quarter] = KeyTotal()
        used.add(record)
        self.dirty_quarters.add(quarter)

    def take_dirty(self) -> Rows:
        """The changed rows, held unchanging for a writer in another thread; they count as clean from here.

        After a failed write, `put_back` makes them dirty again.
        """
        rows = Rows(
            self.source,
            {key: copy_of(self.minutes[key]) for key in self.dirty_minutes},
            {key: replace(self.quarters[key]) for key in self.dirty_quarters},
        )
        self.dirty_minutes, self.dirty_quarters = set(), set()
        return rows

    def put_back(self, rows: Rows) -> None:
        self.dirty_minutes |= rows.minutes.keys()
        self.dirty_quarters |= rows.quarters.keys()

    def written_up_to(self, now: float) -> int:
        """The start of the earliest quarter hour that is running or has unwritten rows."""
        starts = [key[2] for key in self.dirty_minutes] + [key[4] for key in self.dirty_quarters]
        earliest = min([int(now), *starts])
        return earliest - earliest % QUARTER

    def drop(self, before: int) -> None:
        """Forget buckets that ended by `before`, the start of a quarter hour with all earlier rows written."""
        self.minutes = {key: total for key, total in self.minutes.items() if key[2] >= before}
        self.quarters = {key: total for key, total in self.quarters.items() if key[4] >= before}


def copy_of(total: Total) -> Total:
    copy = Total()
    copy.merge(total)
    return copy
