"""A count of limits in memory, and callers who go for what it lets pass."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.buckets import Answer, Ask, Buckets
from gateway.contract import Away, Counts
from gateway.errors import Refusal
from gateway.quota import Limiter, Taken
from gateway.routes import Admission, Key, Quotas, Route

NOON = 1_764_158_400_000
_numbers = itertools.count(1)


@dataclass
class Memory:
    """What several limiters share without a server. `away` refuses, `stuck` never answers, until set otherwise."""

    buckets: Buckets = field(default_factory=Buckets)
    now: int = NOON
    away: bool = False
    stuck: asyncio.Event | None = None
    asks: int = 0

    async def exchange(self, ask: Ask) -> Answer:
        self.asks += 1
        if self.away:
            raise Away("Valkey: refused")
        if self.stuck is not None:
            await self.stuck.wait()
        await asyncio.sleep(0)
        return self.buckets.exchange(ask, self.now)

    async def close(self) -> None:
        pass

    def used(self, name: str, what: int) -> int:
        count = self.buckets.counts.get(name)
        return count.used(what) if count else 0


def limiter(counts: Counts, **more: Any) -> Limiter:
    """One that waits as long as a busy machine needs."""
    return Limiter(counts, **{"patience": 30.0, "lease": 60.0} | more)


def key(**quotas: int) -> Key:
    return Key(next(_numbers), project_id=1, quotas=Quotas(**quotas) if quotas else None, holder=unique("key"))


def route(**quotas: int) -> Route:
    admission = Admission(quotas=Quotas(**quotas) if quotas else None)
    return Route(next(_numbers), "tiny", "local", project_id=1, revision_id=1, admission=admission)


def unique(kind: str) -> str:
    return f"{kind}:{next(_numbers)}"


@asynccontextmanager
async def looked_after(*limiters: Limiter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for one in limiters:
            await one.stop()


async def rush(
    one: Limiter,
    who: Key,
    where: Route,
    *,
    tokens: int = 0,
    callers: int = 16,
    then: Callable[[Taken], Awaitable[None]],
) -> int:
    """So many callers ask again and again until one and all were refused; how many requests were let in."""

    async def call() -> int:
        let_in = 0
        while isinstance(found := await one.take(who, where, tokens), Taken):
            let_in += 1
            await then(found)
        assert isinstance(found, Refusal)
        return let_in

    return sum(await asyncio.gather(*(call() for _ in range(callers))))


def headers(found: Taken | Refusal | None) -> dict[str, str]:
    assert found is not None
    return {name.decode(): value.decode() for name, value in found.headers}
