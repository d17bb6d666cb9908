"""Doorbells: they ring after commit, carry no facts, and may be lost, because a timer gets there too."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import redis
from celery import current_app
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import transaction
from kombu.exceptions import OperationalError

from accounts.bell import ROUTES, ring_gateway, valkey

log = logging.getLogger(__name__)

AT_WORK = "tir:look-again:"  # and the endpoint's id: a list that a run at work waits on
LONGEST_WAIT = 0.5  # seconds
RUNG = "tir:rung:"  # and a group: it was rung not long ago
OPENS_WITHIN = 15  # seconds from a page's rendering to its open socket, or the page asks anew by itself

__all__ = ["ROUTES", "push", "ring_controller", "ring_gateway", "ring_pages", "send", "valkey"]


def endpoint_group(endpoint_id: int) -> str:
    return f"endpoint.{endpoint_id}"


def project_group(project_id: int) -> str:
    return f"project.{project_id}"


def ring_controller(endpoint_id: int) -> None:
    """Ask for a reconcile now rather than at the next sweep."""
    transaction.on_commit(lambda: call_controller(endpoint_id))


def call_controller(endpoint_id: int) -> None:
    """Wake a run for this endpoint; one that is at work already looks again at once."""
    try:
        pipe = valkey().pipeline(transaction=False)
        pipe.rpush(f"{AT_WORK}{endpoint_id}", 1)
        pipe.expire(f"{AT_WORK}{endpoint_id}", 2)
        pipe.execute()
    except (redis.RedisError, OSError) as problem:
        log.warning("The run of endpoint %s was not rung: %s", endpoint_id, problem)
    send("endpoints.reconcile", endpoint_id)


def rest(endpoint_id: int, seconds: float) -> None:
    """Wait so long, or until the controller is called for this endpoint."""
    ends = time.monotonic() + seconds
    try:
        while (left := ends - time.monotonic()) > 0:
            # Below the client's own timeout, which would read as an outage.
            if valkey().blpop([f"{AT_WORK}{endpoint_id}"], timeout=min(left, LONGEST_WAIT)):
                return
    except (redis.RedisError, OSError):
        time.sleep(max(0.0, ends - time.monotonic()))


def ring_pages(project_id: int, endpoint_id: int | None, what: Sequence[str]) -> None:
    """Tell open pages which of their fragments to fetch again."""
    transaction.on_commit(lambda: push(project_id, endpoint_id, {"type": "doorbell", "what": list(what)}))


def push(project_id: int, endpoint_id: int | None, message: dict[str, object]) -> None:
    """Send one live message to everybody who looks at the project or the endpoint; who is about to look hears by
    `rung` that something was sent."""
    groups = [project_group(project_id)] + ([endpoint_group(endpoint_id)] if endpoint_id else [])
    publish([(group, live_message(message)) for group in groups], noted=groups)


def rung(group: str) -> bool:
    """Whether a page of this group that is opening now may have been rendered before something changed."""
    return bool(valkey().exists(f"{RUNG}{group}"))


def live_message(message: dict[str, Any]) -> dict[str, Any]:
    """The event that brings a page's socket this message."""
    return {"type": "live.message", "message": message}


def publish(events: Sequence[tuple[str, dict[str, Any]]], *, noted: Sequence[str] = ()) -> bool:
    """Send each event to its group's sockets; False when Valkey is away (pages then ask by themselves).

    The same wire form as the channel layer's own `group_send`, which needs an event loop and, from a
    worker's thread, a new connection for every call.
    """
    layer: Any = get_channel_layer()
    if not events or layer is None:
        return True
    config: Any = settings.CHANNEL_LAYERS["default"]["CONFIG"]
    try:
        pipe = valkey().pipeline(transaction=False)
        for group in noted:  # first: whoever joins in between is told twice rather than not at all
            pipe.set(f"{RUNG}{group}", 1, ex=OPENS_WITHIN)
        for group, event in events:
            pipe.publish(f"{config['prefix']}__group__{group}", layer.serialize(event))
        pipe.execute()
    except (redis.RedisError, OSError) as problem:
        log.warning("Pages were not rung: %s", problem)
        return False
    return True


def send(task: str, *arguments: object, queue: str = "control", expires: float | None = None) -> bool:
    """Queue a task by name; False when the broker is away (the sweep makes up for it). A worker drops it
    `expires` seconds later."""
    try:
        current_app.send_task(task, args=arguments, queue=queue, expires=expires, retry=False)
    except (OperationalError, redis.RedisError, OSError) as problem:
        log.warning("Task %s was not queued: %s", task, problem)
        return False
    return True
