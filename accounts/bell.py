"""The gateway's doorbell: it rings after commit, carries no facts, and may be lost: a timer gets there too.

It hangs here, on the lowest floor, because keys are the gateway's business as much as routes are.
"""

from __future__ import annotations

import logging
from functools import cache

import redis
from django.conf import settings
from django.db import transaction

log = logging.getLogger(__name__)

ROUTES = "tir:routes"  # the gateway listens here


@cache
def valkey() -> redis.Redis:
    """One shared, thread-safe client; every call may raise redis.RedisError."""
    return redis.Redis.from_url(settings.VALKEY_URL, socket_connect_timeout=1, socket_timeout=1)


def ring_gateway() -> None:
    """Tell the gateways that routes or keys changed."""
    transaction.on_commit(_publish_routes)


def _publish_routes() -> None:
    try:
        valkey().publish(ROUTES, "changed")
    except (redis.RedisError, OSError) as problem:
        log.warning("Gateways were not rung: %s", problem)
