"""What runs by the clock: see the beat table in tir_console.celery."""

from __future__ import annotations

import logging

from celery import shared_task
from django.utils import timezone

from endpoints.models import Region
from endpoints.regions import runtime_of
from endpoints.runtimes.base import Unavailable
from monitoring import ingest, measuring, retention, samples
from monitoring import tick as ticks

log = logging.getLogger(__name__)


@shared_task(name="monitoring.tick")
def tick() -> None:
    """Send pages their numbers."""
    ticks.tick(at=timezone.now())


@shared_task(name="monitoring.collect_logs")
def collect_logs() -> None:
    """Bring new log lines in."""
    for region in Region.objects.all():
        try:
            ingest.collect(region, runtime_of(region), at=timezone.now())
        except Unavailable as problem:
            log.warning("No log lines from %s: %s", region.slug, problem)


@shared_task(name="monitoring.sample")
def sample() -> None:
    """Note what instances use."""
    for region in Region.objects.all():
        try:
            samples.sample(region, runtime_of(region), at=timezone.now())
        except Unavailable as problem:
            log.warning("No samples from %s: %s", region.slug, problem)


@shared_task(name="monitoring.measure")
def measure() -> None:
    """Learn from what instances use what the next estimate should assume."""
    measuring.measure(at=timezone.now())


@shared_task(name="monitoring.expire")
def expire() -> None:
    """Remove what is too old."""
    removed = retention.expire(at=timezone.now())
    if any(removed.values()):
        log.info("Removed after retention: %s", removed)
