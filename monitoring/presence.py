"""Which groups somebody looks at: a sorted set of names by the second in which their mark lapses.

Sockets renew their marks; what nobody renews lapses by itself, so a killed console leaves nothing behind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import redis

KEY = "tir:watched"
LIVES_SECONDS = 15
RENEW_SECONDS = 5.0
_name = re.compile(r"^(endpoint|project)\.(\d+)$")


@dataclass(frozen=True)
class Watched:
    endpoints: frozenset[int]
    projects: frozenset[int]

    def __bool__(self) -> bool:
        return bool(self.endpoints or self.projects)


def mark(valkey: redis.Redis, group: str, *, at: float) -> None:
    """Say that somebody looks at this group. Raises redis.RedisError."""
    valkey.zadd(KEY, {group: at + LIVES_SECONDS})


def watched(valkey: redis.Redis, *, at: float) -> Watched:
    """What somebody looks at now. Raises redis.RedisError."""
    names = valkey.zrangebyscore(KEY, at, "+inf")
    valkey.zremrangebyscore(KEY, "-inf", f"({at}")
    found: dict[str, set[int]] = {"endpoint": set(), "project": set()}
    for raw in names:
        match = _name.match(raw.decode() if isinstance(raw, bytes) else str(raw))
        if match:
            found[match[1]].add(int(match[2]))
    return Watched(frozenset(found["endpoint"]), frozenset(found["project"]))
