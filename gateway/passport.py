"""Which requests are remembered one by one, and for how long in memory until the database has them.

Of each endpoint and minute (the numbers are in monitoring.remembering): errors, up to a number of each kind and
of all kinds together, so that a flood of one kind hides no other; the slowest; the first few, and one in a
thousand; and each whose bodies `gateway.bodies` wrote along. The slowest are known once their minute is over.
Time is in the records, and an argument of `take`.
"""

import heapq
import itertools
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.ended import Ended
from gateway.totals import MINUTE, SWITCHED
from monitoring.remembering import ERRORS, ERRORS_OF_A_KIND, FIRST, ONE_IN, SAMPLES, SLOWEST

MOST = 5_000  # that wait for the database
MOST_WITH_BODIES = 200  # of them that still have their bodies

_numbers = itertools.count()


@dataclass(slots=True, eq=False)
class Passport:
    """One remembered request and what for; an error says so by its status. `id` is its own: callers choose
    request ids and may repeat them."""

    ended: Ended
    slow: bool = False
    sample: bool = False
    id: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass(slots=True)
class Minute:
    """What was chosen of one endpoint's running minute."""

    start: int
    seen: int = 0
    errors: int = 0
    samples: int = 0
    kinds: dict[tuple[int, str], int] = field(default_factory=dict)
    slowest: list[tuple[int, int, Ended, Passport | None]] = field(default_factory=list)
    bar_us: int = -1  # the latency that the next of the slowest has to pass

    def wants_error(self, one: Ended) -> bool:
        kind = (one.record.status, one.code)
        of_kind = self.kinds.get(kind, 0)
        if self.errors >= ERRORS or of_kind >= ERRORS_OF_A_KIND:
            return False
        self.errors += 1
        self.kinds[kind] = of_kind + 1
        return True

    def wants_sample(self) -> bool:
        if self.samples >= SAMPLES:
            return False
        self.samples += 1
        return True

    def offer(self, one: Ended, passport: Passport | None) -> None:
        """Keep it while it is among the slowest."""
        entry = (one.record.latency_us, next(_numbers), one, passport)
        if len(self.slowest) < SLOWEST:
            heapq.heappush(self.slowest, entry)
        else:
            heapq.heapreplace(self.slowest, entry)
        if len(self.slowest) == SLOWEST:
            self.bar_us = self.slowest[0][0]


class Passports:
    """Chooses as requests end, and holds what was chosen until it is taken."""

    def __init__(self) -> None:
        self.dropped = 0
        self._minutes: dict[int, Minute] = {}
        self._waiting: dict[uuid.UUID, Passport] = {}
        self._counted = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def fold(self, batch: Sequence[Ended]) -> None:
        for one in batch:
            at, endpoint_id, _, _, status, latency_us, *_ = one[0]
            minute = self._minutes.get(endpoint_id)
            if minute is None or at >= minute.start + MINUTE:
                self._end(minute)
                minute = self._minutes[endpoint_id] = Minute(int(at) // MINUTE * MINUTE)
            minute.seen += 1
            self._counted += 1
            passport = None
            error = status >= 400 and minute.wants_error(one)
            sample = (minute.seen <= FIRST or not self._counted % ONE_IN) and minute.wants_sample()
            if error or sample or one.bodies is not None:
                passport = Passport(one, sample=sample or one.bodies is not None)
                self._keep(passport)
            if latency_us > minute.bar_us and status != SWITCHED:
                minute.offer(one, passport)

    def take(self, at: float) -> list[Passport]:
        """What is to be written now, the slowest of minutes that were over at `at` among it. They count as
        written; after a failure, `put_back`."""
        for endpoint_id, minute in list(self._minutes.items()):
            if minute.start + MINUTE <= at:
                self._end(minute)
                del self._minutes[endpoint_id]
        taken, self._waiting = list(self._waiting.values()), {}
        return taken

    def take_all(self) -> list[Passport]:
        """At the end of the process: the slowest of running minutes too."""
        return self.take(math.inf)

    def put_back(self, passports: Iterable[Passport]) -> None:
        for passport in passports:
            self._keep(passport)

    def _end(self, minute: Minute | None) -> None:
        for _, _, one, passport in minute.slowest if minute is not None else ():
            chosen = passport or Passport(one)
            chosen.slow = True
            self._keep(chosen)

    def _keep(self, passport: Passport) -> None:
        """Hold it for the next taking. One that was written already is written again, with what is new of it."""
        if len(self._waiting) >= MOST and passport.id not in self._waiting:
            self.dropped += 1
            return
        if passport.ended.bodies is not None and len(self._waiting) >= MOST_WITH_BODIES:
            passport.ended.bodies.forget()  # the database is away: what was said is the first to go
        self._waiting[passport.id] = passport
