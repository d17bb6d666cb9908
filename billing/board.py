"""The money on an endpoint's page: tiles, the newest point of the cost chart, the chart itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from billing import costs, metering, periods
from billing.costs import Bill
from billing.metering import Period
from billing.models import Unit
from endpoints.models import Endpoint
from monitoring import charts
from monitoring.cards import Card
from monitoring.charts import Chart
from monitoring.extras import Part
from monitoring.numbers import Tile
from monitoring.window import Window


def parts(endpoints: Sequence[Endpoint], at: datetime) -> Mapping[int, Part]:
    """The money of each, in a constant number of queries."""
    bills = costs.bills([endpoint.pk for endpoint in endpoints], at=at)
    return {key: Part(tiles(bill), {"cost": [float(bill.per_hour), 0.0]}) for key, bill in bills.items()}


def tiles(bill: Bill) -> list[Tile]:
    first = bill.month.start.astimezone(periods.zone())
    since = f"since {first.day} {first:%b}, {first:%Z}"
    unpriced = "No price is set for its instance type" if bill.so_far.unpriced else ""
    return [
        Tile("cost_hour", "Cost per hour now", float(bill.per_hour), "rate", hint="Of the instances billed now"),
        Tile("cost_so_far", "Cost so far", float(bill.so_far.total), "money", absent=unpriced, note=since),
        Tile(
            "cost_month",
            "Projected month",
            float(bill.projected),
            "money",
            absent=unpriced,
            note="if it goes on as now",
            hint="So far, and the present hourly cost for the rest of the month; requests to come are not guessed",
        ),
    ]


def _load(endpoint: Endpoint, window: Window) -> Chart:
    """₹ an hour in each bucket, of instances and of requests."""
    step = timedelta(seconds=window.range.sample_step)
    moments = window.buckets(window.range.sample_step)
    found = costs.evidence([endpoint.pk], Period(moments[0], window.at))[endpoint.pk]
    book = costs.rates()
    compute: list[float | None] = []
    requests: list[float | None] = []
    for start in moments:
        period = Period(start, min(start + step, window.at))
        lines = metering.quantities(found, period, book) if period.start < period.end else []
        hours = period.hours
        compute.append(_an_hour(lines, Unit.INSTANCE_HOUR, hours))
        requests.append(_an_hour(lines, Unit.REQUEST, Decimal(int(step.total_seconds())) / 3600))
    known = [moment + step > endpoint.created_at for moment in moments]
    traces = [
        charts.trace(name, moments, [v if k else None for v, k in zip(values, known, strict=True)], {"series": n})
        for n, (name, values) in enumerate((("Instances", compute), ("Requests", requests)), start=1)
    ]
    return Chart(charts.figure(traces, window, tickprefix="₹"))


def _an_hour(lines: Sequence[metering.Line], unit: str, hours: Decimal) -> float | None:
    if not hours:
        return None
    return float(sum((line.cost for line in lines if line.unit == unit), Decimal(0)) / hours)


CARD = Card(
    "cost",
    "Cost",
    _load,
    format="rate",
    tick="tiles.cost_hour",
    note="Requests count where their quarter hour begins",
)
