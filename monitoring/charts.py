"""Charts as data: each function returns one Plotly figure as a dict of plain JSON values. Pure.

A bucket in which nothing was measured is null and breaks the line. No request is zero requests a second, but no
latency. Colours are the browser's: a trace names its series (1 to 8) or its tone in `meta`. A trace's
`customdata` says how many requests stand behind each percentile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from monitoring.traffic import Total
from monitoring.window import Window

Json = dict[str, Any]
Points = Mapping[datetime, float | None]
LEAST_SECONDS = 5  # of a running bucket before it has a rate
NO_REQUESTS = "No requests in this period."
NOT_MEASURED = "Nothing was measured in this period."


@dataclass(frozen=True)
class Chart:
    """A figure and the number that stands beside its title; `absent` is said instead of both.

    `empty` is said instead of the plot for as long as no number is in it, or none but 0 where `from_zero`.
    """

    figure: Json
    value: float | None = None
    absent: str = ""
    empty: str = ""
    from_zero: bool = False

    @property
    def is_empty(self) -> bool:
        numbers = [y for one in self.figure["data"] for y in one["y"] if y is not None]
        return not any(numbers) if self.from_zero else not numbers


def finite(value: float | None) -> float | None:
    """What JSON can hold; whatever is no number becomes a gap."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


def trace(name: str, moments: Sequence[datetime], values: Sequence[float | None], meta: Json, **more: Any) -> Json:
    """One line. Moments and values belong together by place."""
    return {
        "type": "scatter",
        "name": name,
        "x": [moment.isoformat() for moment in moments],
        "y": [finite(value) for value in values],
        "connectgaps": False,
        "meta": meta,
        **more,
    }


def figure(traces: Sequence[Json], window: Window, **axis: Any) -> Json:
    first, last = window.start, window.at
    layout = {
        "xaxis": {"type": "date", "range": [first.isoformat(), last.isoformat()]},
        "yaxis": {"rangemode": "tozero", **axis},
    }
    return {"data": list(traces), "layout": layout}


def requests(totals: Mapping[datetime, Total], window: Window, *, since: datetime) -> Chart:
    """Requests a second by how they were answered. Before `since`, the endpoint's beginning, is a gap."""
    step = window.range.step
    moments = window.buckets(step)
    kinds = (
        ("2xx", "succeeded", "ok"),
        ("4xx", "client_errors", "warn"),
        ("5xx", "server_errors", "bad"),
        ("Client left", "aborted", "idle"),
    )
    traces = []
    for name, column, tone in kinds:
        values = [_rate(totals.get(m), column, m, step, window.at, since) for m in moments]
        traces.append(trace(name, moments, values, {"tone": tone}, stackgroup="answers"))
    return Chart(figure(traces, window), empty=NO_REQUESTS, from_zero=True)


def _rate(
    total: Total | None, column: str, start: datetime, step: int, at: datetime, since: datetime
) -> float | None:
    if start + timedelta(seconds=step) <= since:
        return None
    seconds = min(step, (at - start).total_seconds())
    if seconds < LEAST_SECONDS:
        return None
    return getattr(total, column) / seconds if total else 0.0


def latency(totals: Mapping[datetime, Total], window: Window) -> Chart:
    """p50, p95 and p99 in ms of each bucket's merged histogram; p99 only of a hundred requests and more."""
    moments = window.buckets(window.range.step)
    counts = [totals[m].latency.count if m in totals else 0 for m in moments]
    traces = []
    for series, q in enumerate((50, 95, 99), start=1):
        values = [totals[m].latency_ms(q / 100) if m in totals else None for m in moments]
        traces.append(trace(f"p{q}", moments, values, {"series": series}, customdata=counts))
    return Chart(figure(traces, window), empty=NO_REQUESTS)


def usage(mean: Points, highest: Points, window: Window, *, absent: str = "") -> Chart:
    """Per cent of what instances have: their mean, and the one that uses most."""
    moments = window.buckets(window.range.sample_step)
    traces = [
        trace(name, moments, [points.get(m) for m in moments], {"series": series})
        for series, (name, points) in enumerate((("Mean", mean), ("Highest", highest)), start=1)
    ]
    return Chart(figure(traces, window, ticksuffix=" %"), absent=absent, empty=NOT_MEASURED)


@dataclass(frozen=True)
class Life:
    """One instance: when it began, first answered and ended. None: not (yet)."""

    started_at: datetime
    ready_at: datetime | None
    ended_at: datetime | None


def instances(lives: Sequence[Life], window: Window) -> Chart:
    """How many were ready and how many starting, at each moment at which that changed."""
    moments = sorted({window.start, window.at, *_changes(lives, window)})
    ready = [_count(lives, m, started=False) for m in moments]
    starting = [_count(lives, m, started=True) for m in moments]
    step = {"line": {"shape": "hv"}}
    traces = [
        trace("Ready", moments, ready, {"series": 1}, **step),
        trace("Starting", moments, starting, {"series": 2}, **step),
    ]
    whole = max(1, -(-max([*ready, *starting]) // 5))  # between ticks, so that none falls on half an instance
    return Chart(figure(traces, window, tickformat="d", dtick=whole))


def _changes(lives: Sequence[Life], window: Window) -> set[datetime]:
    moments = {m for life in lives for m in (life.started_at, life.ready_at, life.ended_at) if m}
    return {m for m in moments if window.start <= m <= window.at}


def _count(lives: Sequence[Life], at: datetime, *, started: bool) -> float:
    """Half-open: an instance is not there at the moment of its end."""
    alive = [life for life in lives if life.started_at <= at and (life.ended_at is None or at < life.ended_at)]
    ready = sum(1 for life in alive if life.ready_at is not None and life.ready_at <= at)
    return len(alive) - ready if started else ready


def table(drawn: Json) -> Json:
    """The same numbers as rows, for who can't see the lines and for CSV: `{"columns", "rows"}`, oldest first."""
    traces = drawn["data"]
    moments = sorted({x for one in traces for x in one["x"]})
    by_moment = [dict(zip(one["x"], one["y"], strict=True)) for one in traces]
    return {
        "columns": ["time", *(one["name"] for one in traces)],
        "rows": [[moment, *(values.get(moment) for values in by_moment)] for moment in moments],
    }
