"""Doorbells: they ring after commit, carry no facts, and may be lost, because a timer gets there too."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import redis
from asgiref.sync import async_to_sync
from celery import current_app
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import transaction
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)

ROUTES = "tir:routes"  # the gateway listens here


def endpoint_group(endpoint_id: int) -> str:
    return f"endpoint.{endpoint_id}"


def project_group(project_id: int) -> str:
    return f"project.{project_id}"


@cache
def valkey() -> redis.Redis:
    """One shared, thread-safe client; every call may raise redis.RedisError."""
    return redis.Redis.from_url(settings.VALKEY_URL, socket_connect_timeout=1, socket_timeout=1)


def ring_gateway() -> None:
    """Tell the gateways that routes or keys changed."""
    transaction.on_commit(_publish_routes)


def ring_controller(endpoint_id: int) -> None:
    """Ask for a reconcile now rather than at the next sweep."""
    transaction.on_commit(lambda: send("endpoints.reconcile", endpoint_id))


def ring_pages(project_id: int, endpoint_id: int | None, what: Sequence[str]) -> None:
    """Tell open pages which of their fragments to fetch again."""
    transaction.on_commit(lambda: push(project_id, endpoint_id, {"type": "doorbell", "what": list(what)}))


def push(project_id: int, endpoint_id: int | None, message: dict[str, object]) -> None:
    """Send one live message to everybody who looks at the project or the endpoint."""
    groups = [project_group(project_id)] + ([endpoint_group(endpoint_id)] if endpoint_id else [])
    layer = get_channel_layer()
    try:
        for group in groups:
            async_to_sync(layer.group_send)(group, {"type": "live.message", "message": message})
    except (redis.RedisError, OSError) as problem:
        log.warning("Pages were not rung: %s", problem)


def send(task: str, *arguments: object, queue: str = "control") -> bool:
    """Queue a task by name; False when the broker is away (the sweep makes up for it)."""
    try:
        current_app.send_task(task, args=arguments, queue=queue, retry=False)
    except (OperationalError, redis.RedisError, OSError) as problem:
        log.warning("Task %s was not queued: %s", task, problem)
        return False
    return True


def _publish_routes() -> None:
    try:
        valkey().publish(ROUTES, "changed")
    except (redis.RedisError, OSError) as problem:
        log.warning("Gateways were not rung: %s", problem)
