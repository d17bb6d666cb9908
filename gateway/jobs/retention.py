"""How long asynchronous requests are kept: their texts for the hours of the setting, the rest for a month."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q

from gateway.jobs import queue
from gateway.jobs.models import AsyncRequest, Told, WebhookSecret

KEPT_DAYS = 30  # without texts: for the page, and for estimates


def expire(*, at: datetime) -> dict[str, int]:
    """Remove what is over its time; end what has waited for too long."""
    old = AsyncRequest.objects.filter(expires_at__lte=at)
    texts = old.filter(Q(answer__isnull=False) | Q(webhook__isnull=False))
    still = texts.filter(told=Told.WAITING)  # its last try says why it ends
    wiped = texts.exclude(pk__in=still.values("pk")).update(
        answer=None, webhook=None, idempotency_key="", idempotency_digest=""
    )
    still.update(answer=None, next_try_at=at)
    gone = AsyncRequest.objects.filter(finished_at__lt=at - timedelta(days=KEPT_DAYS))
    removed = gone.delete()[1].get(AsyncRequest._meta.label, 0)
    WebhookSecret.objects.filter(retires_at__lt=at).delete()
    given_up = queue.give_up(at - timedelta(hours=settings.ASYNC_RESULT_HOURS))
    return {"wiped": wiped, "removed": removed, "given_up": given_up}
