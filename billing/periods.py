"""The months that bills are made of: the billing time zone's, whose midnight is not a UTC hour in India."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings

from billing.metering import Period


def zone() -> ZoneInfo:
    return ZoneInfo(settings.BILLING_TIME_ZONE)


def month(at: datetime) -> Period:
    """The whole calendar month in which a moment lies."""
    local = at.astimezone(zone())
    start = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (start + timedelta(days=32)).replace(day=1)
    return Period(start, following)


def month_so_far(at: datetime) -> Period:
    return Period(month(at).start, at)
