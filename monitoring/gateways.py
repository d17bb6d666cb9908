"""What the gateways say each second, read from Valkey and added up.

Each gateway keeps one key `tir:gateway:<source>` that is gone five seconds after its last word; the shape is
documented where it is made, in gateway.tick.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from monitoring.traffic import Total

log = logging.getLogger(__name__)

PREFIX = "tir:gateway:"


@dataclass
class Now:
    """One endpoint at this moment, over all gateways."""

    in_flight: dict[str, int] = field(default_factory=dict)  # by instance name
    queued: int = 0  # requests that wait for an instance
    window_seconds: int = 10
    window: Total = field(default_factory=Total)  # what ended in the last `window_seconds`
    minute_at: int = 0  # start of the running minute, seconds since 1970
    minute: Total = field(default_factory=Total)  # what ended since then

    @property
    def per_second(self) -> float:
        return self.window.requests / self.window_seconds


def read(valkey: redis.Redis) -> list[dict[str, Any]]:
    """Every gateway's last word. Raises redis.RedisError; a word that is no JSON object is passed over."""
    keys = list(valkey.scan_iter(match=f"{PREFIX}*", count=1000))
    raw = valkey.mget(keys) if keys else []
    return [word for text in raw if text and (word := _parsed(text)) is not None]


def _parsed(text: str | bytes) -> dict[str, Any] | None:
    try:
        word = json.loads(text)
    except ValueError:
        log.warning("A gateway's tick is not JSON.")
        return None
    return word if isinstance(word, dict) else None


def merge(words: Iterable[Mapping[str, Any]]) -> dict[int, Now]:
    """By endpoint: sums of counts, merged histograms. One malformed part leaves out that part only.

    A gateway that is still in the last minute when another has begun a new one doesn't count for the new one.
    """
    found: dict[int, Now] = {}
    for word in words:
        for name, part in _endpoints(word).items():
            try:
                _add(found.setdefault(int(name), Now()), part)
            except (KeyError, TypeError, ValueError) as problem:
                log.warning("A gateway's tick about endpoint %s makes no sense: %s", name, problem)
    return found


def _endpoints(word: Mapping[str, Any]) -> Mapping[str, Any]:
    parts = word.get("endpoints")
    return parts if isinstance(parts, dict) else {}


def _add(now: Now, part: Mapping[str, Any]) -> None:
    window, minute, minute_at = part["window"], part["minute"], int(part["minute"]["at"])
    ended, running = Total.of_tick(window), Total.of_tick(minute)
    busy = {str(name): int(count) for name, count in part["in_flight"].items()}
    waiting = int(part.get("queued", 0))
    now.queued += waiting
    now.window_seconds = max(1, int(window["seconds"]))
    now.window.merge(ended)
    for name, count in busy.items():
        now.in_flight[name] = now.in_flight.get(name, 0) + count
    if minute_at > now.minute_at:
        now.minute_at, now.minute = minute_at, Total()
    if minute_at == now.minute_at:
        now.minute.merge(running)
