"""How long measurements are kept. Billing's evidence (KeyTraffic, instances) is never removed here.

Minutes of traffic are kept for eight days, so that a week can be compared with the one before at the finest
level on its first day too.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Exists, F, Max, OuterRef, QuerySet

from endpoints.models import Instance
from monitoring.models import LogLine, RequestRecord, Sample, Traffic

TRAFFIC_DAYS = 8
SAMPLE_DAYS = 8
LOG_DAYS = 14
LINES_AN_INSTANCE = 200_000
AT_ONCE = 10_000  # rows in one statement, so that no lock is held for long


def expire(*, at: datetime) -> dict[str, int]:
    """Remove what is older than its days, and the oldest lines of instances that write without end."""
    return {
        "traffic": _remove(Traffic.objects.filter(minute__lt=at - timedelta(days=TRAFFIC_DAYS))),
        "samples": _remove(Sample.objects.filter(at__lt=at - timedelta(days=SAMPLE_DAYS))),
        "log_lines": _remove(_old_lines(at)) + _shorten(),
        "requests": _remove(
            RequestRecord.objects.filter(at__lt=at - timedelta(days=settings.REQUEST_RECORD_DAYS))
        ),
    }


def _old_lines(at: datetime) -> QuerySet[LogLine]:
    """Lines past their days, but never an instance's last one: collection goes on from its number."""
    later = LogLine.objects.filter(instance=OuterRef("instance"), sequence__gt=OuterRef("sequence"))
    return LogLine.objects.filter(Exists(later), at__lt=at - timedelta(days=LOG_DAYS))


def _shorten() -> int:
    """Keep the newest lines of each live instance."""
    last = Instance.objects.live().annotate(last=Max(F("log_lines__sequence")))
    count = 0
    for key, newest in last.filter(last__gt=LINES_AN_INSTANCE).values_list("pk", "last"):
        count += _remove(LogLine.objects.filter(instance=key, sequence__lte=newest - LINES_AN_INSTANCE))
    return count


def _remove(
    rows: QuerySet[LogLine] | QuerySet[RequestRecord] | QuerySet[Sample] | QuerySet[Traffic],
) -> int:
    count = 0
    while True:
        keys: list[Any] = list(rows.values_list("pk", flat=True)[:AT_ONCE])
        if not keys:
            return count
        count += rows.model._base_manager.filter(pk__in=keys)._raw_delete(connection.alias)
