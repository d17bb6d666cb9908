"""What runs by the clock: see the beat table in tir_console.celery."""

from __future__ import annotations

import logging

from celery import shared_task
from django.utils import timezone

from gateway.jobs import retention, webhooks
from gateway.jobs.couriers import couriers

log = logging.getLogger(__name__)


@shared_task(name="gateway.ring_webhooks")
def ring_webhooks() -> None:
    """Have every webhook told whose time has come."""
    couriers.send(len(webhooks.due()))


@shared_task(name="gateway.expire_requests")
def expire_requests() -> None:
    """Remove texts and rows past their time."""
    removed = retention.expire(at=timezone.now())
    if any(removed.values()):
        log.info("Asynchronous requests after retention: %s", removed)
