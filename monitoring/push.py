"""Live messages to those who look: many at once over one connection to the channel layer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import redis
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

log = logging.getLogger(__name__)

Message = tuple[str, dict[str, Any]]
"""(group, message)"""


def push(messages: Sequence[Message]) -> bool:
    """Send each message to its group. False when Valkey is away: pages ask again by themselves."""
    if not messages:
        return True
    try:
        async_to_sync(_push)(messages)
    except (redis.RedisError, OSError) as problem:
        log.warning("Pages got no live data: %s", problem)
        return False
    return True


async def _push(messages: Sequence[Message]) -> None:
    layer = get_channel_layer()
    if layer is None:
        return
    await asyncio.gather(
        *(layer.group_send(group, {"type": "live.message", "message": message}) for group, message in messages)
    )
