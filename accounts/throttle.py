"""How often one address may ask for what costs us or tells something."""

from __future__ import annotations

import logging

import redis
from axes.helpers import get_client_ip_address
from django.core.cache import cache
from django.http import HttpRequest

log = logging.getLogger(__name__)


def allows(request: HttpRequest, what: str, *, limit: int, seconds: int) -> bool:
    """Count this call; False once there were more than `limit` from its address in `seconds`.

    Without Valkey nobody is counted: people must be able to come in while it is away.
    """
    name = f"throttle:{what}:{get_client_ip_address(request)}"
    try:
        cache.add(name, 0, timeout=seconds)
        return bool(cache.incr(name) <= limit)
    except ValueError:  # it ran out between the two
        return True
    except redis.RedisError as problem:
        log.warning("%s is not throttled: %s", what, problem)
        return True
