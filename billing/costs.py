"""What endpoints cost: evidence and prices read from the database, put through metering."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import Q, Sum

from billing import metering, periods
from billing.metering import Answered, Book, Evidence, Line, Period, Ran, Rate
from billing.models import Price, Unit
from endpoints.models import Endpoint, Instance
from endpoints.models.deployment import InstanceState
from endpoints.spec import BillingModel
from monitoring.models import KeyTraffic

ZERO = Decimal(0)


@dataclass(frozen=True)
class Cost:
    """Exact sums of lines, all in one currency."""

    lines: Sequence[Line]
    currency: str = "INR"

    @property
    def compute(self) -> Decimal:
        return sum((line.cost for line in self.lines if line.unit == Unit.INSTANCE_HOUR), ZERO)

    @property
    def requests(self) -> Decimal:
        return sum((line.cost for line in self.lines if line.unit == Unit.REQUEST), ZERO)

    @property
    def total(self) -> Decimal:
        return self.compute + self.requests

    @property
    def unpriced(self) -> bool:
        """Something was used that has no price."""
        return any(line.rate is None for line in self.lines)


@dataclass(frozen=True)
class Bill:
    """One endpoint's money at a moment."""

    month: Period  # the whole calendar month
    so_far: Cost  # since its first day
    per_hour: Decimal  # of the instances that answer now
    at: datetime

    @property
    def projected(self) -> Decimal:
        """So far, and the present hourly rate for the rest of the month."""
        return self.so_far.total + self.per_hour * Period(self.at, self.month.end).hours


def rates() -> list[Rate]:
    """Every price there ever was."""
    rows = Price.objects.values_list("unit", "instance_type_id", "amount", "valid_from", "currency")
    return [Rate(unit, kind, amount, since, currency) for unit, kind, amount, since, currency in rows]


def evidence(keys: Iterable[int], period: Period) -> dict[int, Evidence]:
    """By endpoint, in two queries: instances that answered in the period, requests that have a price."""
    keys = list(keys)
    ran: dict[int, list[Ran]] = defaultdict(list)
    instances = Instance.objects.filter(endpoint_id__in=keys, ready_at__lt=period.end).filter(
        Q(ended_at=None) | Q(ended_at__gt=period.start)
    )
    columns = ("endpoint_id", "revision__instance_type_id", "ready_at", "ended_at")
    for key, kind, ready_at, ended_at in instances.values_list(*columns):
        ran[key].append(Ran(kind, ready_at, ended_at))
    answered: dict[int, list[Answered]] = defaultdict(list)
    for key, quarter, requests in _priced_requests(keys, period):
        answered[key].append(Answered(quarter, requests))
    return {key: Evidence(tuple(ran[key]), tuple(answered[key])) for key in keys}


def _priced_requests(keys: list[int], period: Period) -> Iterable[tuple[int, datetime, int]]:
    """Only of revisions that were deployed to be paid by the request."""
    rows = KeyTraffic.objects.filter(
        endpoint_id__in=keys,
        quarter__gte=period.start,
        quarter__lt=period.end,
        revision__spec__scaling__billing_model=BillingModel.PER_REQUEST,
    )
    return rows.values("endpoint_id", "quarter").annotate(n=Sum("requests")).values_list(
        "endpoint_id", "quarter", "n"
    )  # fmt: skip


def cost_of(endpoint: Endpoint, period: Period) -> Cost:
    """What an endpoint cost in a period. What still runs is counted to the period's end."""
    return _cost(evidence([endpoint.pk], period)[endpoint.pk], period, rates())


def _cost(found: Evidence, period: Period, book: Sequence[Rate]) -> Cost:
    lines = metering.quantities(found, period, book)
    currency = next((line.rate.currency for line in lines if line.rate), "INR")
    return Cost(tuple(lines), currency)


def bills(keys: Sequence[int], *, at: datetime) -> dict[int, Bill]:
    """The money of many endpoints at a moment, in four queries however many there are."""
    period, book = periods.month_so_far(at), rates()
    found, hourly = evidence(keys, period), _hourly(keys, Book(book), at)
    whole = periods.month(at)
    return {key: Bill(whole, _cost(found[key], period, book), hourly.get(key, ZERO), at) for key in keys}


def bill_of(endpoint: Endpoint, *, at: datetime) -> Bill:
    return bills([endpoint.pk], at=at)[endpoint.pk]


def hourly_now(endpoint: Endpoint, *, at: datetime) -> Decimal:
    """What the instances that answer now cost an hour."""
    return _hourly([endpoint.pk], Book(rates()), at).get(endpoint.pk, ZERO)


def projected_month(endpoint: Endpoint, *, at: datetime) -> Decimal:
    return bill_of(endpoint, at=at).projected


def _hourly(keys: Iterable[int], book: Book, at: datetime) -> Mapping[int, Decimal]:
    """Everything that is billed now counts: once ready, an instance is billed to its end."""
    found: dict[int, Decimal] = defaultdict(lambda: ZERO)
    live = Instance.objects.live().filter(endpoint_id__in=list(keys), ready_at__lte=at)
    live = live.exclude(state__in=(InstanceState.STOPPED, InstanceState.FAILED))
    for key, kind in live.values_list("endpoint_id", "revision__instance_type_id"):
        rate = book.at(Unit.INSTANCE_HOUR, kind, at)
        found[key] += rate.amount if rate else ZERO
    return found
