"""What charts are made of, read from the database in a number of queries that doesn't depend on the traffic."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Avg, DateTimeField, DurationField, F, FloatField, Func, Max, Q, Value
from django.db.models.functions import Cast

from endpoints.models import Endpoint
from monitoring.charts import Life
from monitoring.models import Sample, Traffic
from monitoring.traffic import COLUMNS, Total
from monitoring.window import Window, aligned

ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_type = "instance__revision__instance_type__"
PERCENT = {
    "cpu": Cast("cpu_millis", FloatField()) / (F(f"{_type}vcpus") * 10),
    "memory": Cast("memory_bytes", FloatField()) * 100 / F(f"{_type}memory_bytes"),
    "gpu": F("gpu_percent"),
}


def traffic(endpoint: Endpoint, window: Window) -> dict[datetime, Total]:
    """Totals by the window's buckets, over gateways and revisions; buckets without traffic are not there."""
    rows = Traffic.objects.filter(endpoint=endpoint, minute__gte=window.start, minute__lte=window.at)
    found: dict[datetime, Total] = {}
    for row in rows.values("minute", *COLUMNS).iterator(chunk_size=2000):
        found.setdefault(aligned(row["minute"], window.range.step), Total()).merge(Total.of_row(row))
    return found


def usage(endpoint: Endpoint, kind: str, window: Window) -> tuple[dict[datetime, Any], dict[datetime, Any]]:
    """(mean, highest) in per cent by bucket, of `cpu`, `memory` or `gpu`; unmeasured samples don't count."""
    bucket = Func(
        Value(timedelta(seconds=window.range.sample_step), output_field=DurationField()),
        F("at"),
        Value(ORIGIN, output_field=DateTimeField()),
        function="date_bin",
        output_field=DateTimeField(),
    )
    rows = (
        Sample.objects.filter(endpoint=endpoint, at__gte=window.start, at__lte=window.at)
        .annotate(bucket=bucket, percent=PERCENT[kind])
        .values("bucket")
        .annotate(mean=Avg("percent"), highest=Max("percent"))
        .values_list("bucket", "mean", "highest")
    )
    mean, highest = {}, {}
    for start, average, most in rows:
        mean[start], highest[start] = average, most
    return mean, highest


def lives(endpoint: Endpoint, window: Window) -> list[Life]:
    """The instances that were there at some moment of the window."""
    rows = endpoint.instances.filter(started_at__lte=window.at)
    rows = rows.filter(Q(ended_at=None) | Q(ended_at__gt=window.start))
    return [Life(*row) for row in rows.values_list("started_at", "ready_at", "ended_at")]


def measured(points: Mapping[datetime, float | None]) -> bool:
    return any(value is not None for value in points.values())
