"""The real store: Django's models in worker threads, Valkey through asyncio.

One thread reads, one writes and one wakes, each with its own connection, so that a slow flush never delays a
revocation or a cold start. A database or Valkey that is away raises `Away` and nothing else.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import redis.asyncio
from django.conf import settings
from django.db import Error, close_old_connections, connections

from endpoints.models import Endpoint
from gateway import facts, remembered, written
from gateway.contract import Away, Counts
from gateway.passport import Passport
from gateway.routes import RouteTable
from gateway.shared import SharedCount
from gateway.tick import CHANNEL_PREFIX, LIVES_SECONDS
from gateway.totals import Rows

T = TypeVar("T")

RING = "tir:routes"
VALKEY_SECONDS = 1.0
QUIET_SECONDS = 30.0


class DatabaseStore:
    def __init__(self) -> None:
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="routes")
        self._writers = ThreadPoolExecutor(1, thread_name_prefix="counts")
        self._wakers = ThreadPoolExecutor(1, thread_name_prefix="wakes")
        self._stamp: facts.Stamp | None = None
        self._valkey = redis.asyncio.Redis.from_url(
            settings.VALKEY_URL, socket_connect_timeout=VALKEY_SECONDS, socket_timeout=VALKEY_SECONDS
        )
        self.counts: Counts = SharedCount(settings.VALKEY_URL)

    async def load(self) -> RouteTable | None:
        return await self._in(self._readers, self._load)

    def _load(self) -> RouteTable | None:
        stamp = facts.stamp()  # read before the facts: a change in between is found again a second later
        if stamp == self._stamp:
            return None
        table = facts.table()
        self._stamp = stamp
        return table

    async def flush(self, batch: Sequence[Rows], used: Mapping[int, float]) -> None:
        await self._in(self._writers, lambda: written.write(batch, used))

    async def flush_passports(self, batch: Sequence[Passport]) -> None:
        if settings.REQUEST_RECORD_DAYS:
            await self._in(self._writers, lambda: remembered.write(batch))

    async def wake(self, endpoint_id: int) -> None:
        await self._in(self._wakers, lambda: _wake(endpoint_id))

    async def publish(self, source: str, tick: bytes) -> None:
        try:
            await self._valkey.set(CHANNEL_PREFIX + source, tick, ex=LIVES_SECONDS)
        except (redis.RedisError, OSError) as problem:
            raise Away(f"Valkey: {problem}") from problem

    async def listen(self) -> AsyncIterator[None]:
        try:
            async with self._valkey.pubsub() as ring:
                await ring.subscribe(RING)
                yield
                while True:
                    # A wait that ends in silence is followed by a ping, which a dead connection fails.
                    message = await ring.get_message(ignore_subscribe_messages=True, timeout=QUIET_SECONDS)
                    if message is None:
                        await ring.ping()
                    else:
                        yield
        except (redis.RedisError, OSError) as problem:
            raise Away(f"Valkey: {problem}") from problem

    async def close(self) -> None:
        await self._valkey.aclose()
        for pool in (self._readers, self._writers, self._wakers):
            await asyncio.get_running_loop().run_in_executor(pool, connections.close_all)
            pool.shutdown()

    async def _in(self, pool: ThreadPoolExecutor, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, reaching, act)


def _wake(endpoint_id: int) -> None:
    endpoint = Endpoint.objects.living().filter(pk=endpoint_id).first()
    if endpoint is not None:
        endpoint.wake(why="A request came.")


def reaching(act: Callable[[], T]) -> T:
    """Do it over a connection that was looked at first; what goes wrong with the database is Away."""
    close_old_connections()
    try:
        return act()
    except Error as problem:
        close_old_connections()
        raise Away(f"PostgreSQL: {problem}".strip()) from problem
