"""How much was used and what it costs, recomputed from evidence whenever it is asked. Pure.

Intervals are half-open, [start, end). An instance counts from the moment it first answered to its end: starts
that failed are never billed. Durations are differences of whole milliseconds since 1970, so that the parts of an
interval, cut wherever, always add up to the whole. Costs are exact; rounding is the invoice's.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing.models import Unit

MS_PER_HOUR = 3_600_000
_epoch = datetime(1970, 1, 1, tzinfo=UTC)
_ms = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Period:
    """[start, end), with time zones."""

    start: datetime
    end: datetime

    @property
    def hours(self) -> Decimal:
        return Decimal(milliseconds(self.start, self.end)) / MS_PER_HOUR


@dataclass(frozen=True)
class Ran:
    """One instance. `ready_at` None: it never answered. `ended_at` None: it still runs."""

    instance_type_id: int
    ready_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class Answered:
    """Requests that a price per request applies to, ended in the quarter hour from `quarter` on."""

    quarter: datetime
    requests: int


@dataclass(frozen=True)
class Evidence:
    ran: Sequence[Ran] = ()
    answered: Sequence[Answered] = ()


@dataclass(frozen=True)
class Rate:
    """What a unit costs from a moment on, until the next rate of the same unit and type."""

    unit: str
    instance_type_id: int | None
    amount: Decimal
    valid_from: datetime
    currency: str = "INR"


@dataclass(frozen=True)
class Line:
    """A quantity at one rate: instance-milliseconds or requests. Without a rate it has no price yet."""

    unit: str
    instance_type_id: int | None
    quantity: int
    rate: Rate | None

    @property
    def cost(self) -> Decimal:
        """Exact, unrounded."""
        if self.rate is None:
            return Decimal(0)
        per = MS_PER_HOUR if self.unit == Unit.INSTANCE_HOUR else 1
        return self.quantity * self.rate.amount / per

    @property
    def hours(self) -> Decimal:
        return Decimal(self.quantity) / MS_PER_HOUR


def quantities(evidence: Evidence, period: Period, rates: Iterable[Rate]) -> list[Line]:
    """What was used in the period by unit, type and rate, largest cost first; nothing that is zero."""
    book = Book(rates)
    used: Counter[tuple[str, int | None, Rate | None]] = Counter()
    for one in evidence.ran:
        for start, end, rate in book.pieces(one, period):
            used[Unit.INSTANCE_HOUR, one.instance_type_id, rate] += milliseconds(start, end)
    for answered in evidence.answered:
        if period.start <= answered.quarter < period.end:
            rate = book.at(Unit.REQUEST, None, answered.quarter)
            used[Unit.REQUEST, None, rate] += answered.requests
    lines = [Line(unit, kind, quantity, rate) for (unit, kind, rate), quantity in used.items() if quantity]
    return sorted(lines, key=lambda line: (-line.cost, line.unit, line.instance_type_id or 0))


def milliseconds(start: datetime, end: datetime) -> int:
    """Whole milliseconds between two moments, each taken down to its millisecond first."""
    return (end - _epoch) // _ms - (start - _epoch) // _ms


def overlap(one: Ran, period: Period) -> Period | None:
    """The billed part of an instance's life that lies in the period; what still runs, runs to its end."""
    if one.ready_at is None:
        return None
    start = max(one.ready_at, period.start)
    end = min(one.ended_at or period.end, period.end)
    return Period(start, end) if start < end else None


class Book:
    """Rates by unit and type, in the order in which they came to hold."""

    def __init__(self, rates: Iterable[Rate]) -> None:
        self._rates: dict[tuple[str, int | None], list[Rate]] = {}
        for rate in sorted(rates, key=lambda rate: rate.valid_from):
            self._rates.setdefault((rate.unit, rate.instance_type_id), []).append(rate)

    def at(self, unit: str, instance_type_id: int | None, moment: datetime) -> Rate | None:
        """The rate that holds at a moment; None before the first."""
        found = None
        for rate in self._rates.get((unit, instance_type_id), ()):
            if rate.valid_from > moment:
                break
            found = rate
        return found

    def pieces(self, one: Ran, period: Period) -> list[tuple[datetime, datetime, Rate | None]]:
        """An instance's billed part of the period, cut where its price changes."""
        billed = overlap(one, period)
        if billed is None:
            return []
        rates = self._rates.get((Unit.INSTANCE_HOUR, one.instance_type_id), ())
        cuts = [rate.valid_from for rate in rates if billed.start < rate.valid_from < billed.end]
        edges = [billed.start, *cuts, billed.end]
        return [
            (start, end, self.at(Unit.INSTANCE_HOUR, one.instance_type_id, start))
            for start, end in itertools.pairwise(edges)
            if start < end
        ]


def of_call(*, seconds: Decimal, per_hour: Decimal | None, per_request: Decimal | None) -> Decimal | None:
    """What one call cost: its price where requests have one, else its share of the instance's time."""
    if per_request is not None:
        return per_request
    return None if per_hour is None else seconds * per_hour / 3600
