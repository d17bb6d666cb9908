"""Celery's door to the controller. Every task may run twice, late or not at all."""

from __future__ import annotations

from celery import shared_task
from django.db import close_old_connections
from django.utils import timezone

from endpoints import (
    building,
    controller,
    importing,
    preparation,
    rebuilding,
    region_upkeep,
    scaler,
    sweep,
    tidying,
)
from endpoints.models import Region
from endpoints.regions import measure


@shared_task(name="endpoints.sweep")
def sweep_all() -> None:
    close_old_connections()
    sweep.sweep()


@shared_task(name="endpoints.autoscale")
def autoscale() -> None:
    close_old_connections()
    scaler.autoscale(at=timezone.now())


@shared_task(name="endpoints.reconcile")
def reconcile(endpoint_id: int) -> None:
    close_old_connections()
    controller.reconcile(endpoint_id)


@shared_task(name="endpoints.validate")
def validate(deployment_id: int) -> None:
    close_old_connections()
    preparation.validate(deployment_id)


@shared_task(name="endpoints.build")
def build(deployment_id: int) -> None:
    close_old_connections()
    building.build(deployment_id)


@shared_task(name="endpoints.rebuild")
def rebuild(revision_id: int) -> None:
    close_old_connections()
    rebuilding.rebuild(revision_id)


@shared_task(name="endpoints.fetch")
def fetch(deployment_id: int) -> None:
    close_old_connections()
    preparation.fetch(deployment_id)


@shared_task(name="endpoints.import_version")
def import_version(import_id: str) -> None:
    close_old_connections()
    importing.run(import_id)


@shared_task(name="endpoints.resume_imports")
def resume_imports() -> None:
    close_old_connections()
    importing.resume(at=timezone.now())


@shared_task(name="endpoints.tidy_store")
def tidy_store() -> None:
    close_old_connections()
    tidying.tidy(at=timezone.now())


@shared_task(name="endpoints.tidy_regions")
def tidy_regions() -> None:
    close_old_connections()
    for region in Region.objects.all():
        region_upkeep.tidy(region, at=timezone.now())


@shared_task(name="endpoints.measure_capacity")
def measure_capacity() -> None:
    """Write down what each region says it can hold, for pages that may not ask a runtime."""
    close_old_connections()
    for region in Region.objects.filter(enabled=True):
        measure(region, at=timezone.now())


@shared_task(name="endpoints.measure_region")
def measure_region(region_id: int) -> None:
    """The same for one region that somebody wants to know of now."""
    close_old_connections()
    for region in Region.objects.filter(pk=region_id):
        measure(region, at=timezone.now())
