"""What runs by the clock: see the beat table in tir_console.celery."""

from __future__ import annotations

import logging

from celery import shared_task
from django.utils import timezone

from gateway.jobs import retention, webhooks

log = logging.getLogger(__name__)

STALE_SECONDS = 10  # a message that waited longer is dropped: it is rung again while there is something to tell


@shared_task(name="gateway.ring_webhooks")
def ring_webhooks() -> None:
    """Have every webhook told whose time has come."""
    for pk in webhooks.due():
        tell_webhook.apply_async((pk,), expires=STALE_SECONDS)


@shared_task(name="gateway.tell_webhook")
def tell_webhook(pk: int) -> None:
    webhooks.deliver(pk)


@shared_task(name="gateway.expire_requests")
def expire_requests() -> None:
    """Remove texts and rows past their time."""
    removed = retention.expire(at=timezone.now())
    if any(removed.values()):
        log.info("Asynchronous requests after retention: %s", removed)
