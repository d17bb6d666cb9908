"""What a gateway does beside traffic: fresh routes, counts to the database, a tick for the browsers.

Every loop outlives its source: routes stay as last read, counts stay dirty, and how long that has lasted is
in `/healthz`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import Any

import orjson

from gateway.contract import Away, Store
from gateway.core import Gateway
from gateway.metrics import Duty
from gateway.quota import Limiter
from gateway.telemetry import Telemetry
from gateway.tick import tick
from gateway.waking import Waker

log = logging.getLogger("gateway")

REFRESH_SECONDS = 1.0
FLUSH_SECONDS = 5.0
TICK_SECONDS = 1.0
LIMITS_SECONDS = 1.0
STALE_SECONDS = 10.0
LOOK_SECONDS = 0.2  # between two looks for unknown keys, however many of them come


class Pulse:
    """When something last worked, and why it does not now."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.last: float | None = None
        self.problem = ""

    def worked(self) -> None:
        if self.problem:
            log.warning("%s works again", self.name)
        self.last, self.problem = monotonic(), ""

    def failed(self, why: Exception) -> None:
        if not self.problem:
            log.warning("%s does not work: %s", self.name, why)
        self.problem = str(why) or type(why).__name__

    def age(self) -> float | None:
        return None if self.last is None else round(monotonic() - self.last, 1)

    def as_duty(self, name: str) -> Duty:
        age = self.age()
        return Duty(name, None if age is None else round(time() - age, 1), bool(self.problem))

    def as_json(self) -> dict[str, Any]:
        return {"age_s": self.age(), "problem": self.problem or None}


class Keeper:
    """Runs the loops of one gateway against one store."""

    def __init__(self, gateway: Gateway, store: Store, telemetry: Telemetry) -> None:
        self.gateway = gateway
        self.store = store
        self.telemetry = telemetry
        self.routes, self.flushes, self.ticks = Pulse("Reading routes"), Pulse("Writing counts"), Pulse("Valkey")
        self.memories = Pulse("Remembering requests")
        self.draining = False
        self.jobs = gateway.jobs
        self._tasks: list[asyncio.Task[None]] = []
        self._coming: asyncio.Task[None] | None = None  # a look that hasn't begun yet
        self._looked = 0.0
        self.waker = Waker(store)
        gateway.look_again, gateway.wake = self.look_again, self.waker
        gateway.limiter = self.limiter = Limiter(store.counts)

    def start(self) -> None:
        loops = (self._refreshing(), self._listening(), self._flushing(), self._ticking(), self._limiting())
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        self.telemetry.start()
        if self.jobs is not None:
            self.jobs.start(self.gateway, self.gateway.meter.totals.source, lambda: self.draining)

    @property
    def busy(self) -> bool:
        """Whether something that was queued is being run, beside what callers wait for."""
        return self.jobs is not None and self.jobs.busy

    async def stop(self) -> None:
        """After the last request: end the loops, write what is left, let go of the store."""
        self.draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.jobs is not None:
            await self.jobs.stop()
        await self.waker.stop()
        await self.limiter.stop()
        await self.flush()
        await self.remember(self.telemetry.flush_all)
        await self.publish(left=True)
        self.telemetry.stop()
        self.gateway.pool.close()
        self.gateway.meter.close()
        await self.store.close()

    async def refresh(self) -> None:
        try:
            table = await self.store.load()
        except Exception as problem:  # noqa: BLE001 (a row that can't be read may not stop the reading for good)
            self.routes.failed(problem)
            return
        if table is not None:
            self.gateway.take_table(table)
        self.routes.worked()

    async def look_again(self) -> None:
        """Read routes and keys once more, beginning after this call; all who wait for it share one read."""
        if self._coming is None:
            self._coming = asyncio.create_task(self._look())
        await asyncio.shield(self._coming)

    async def _look(self) -> None:
        await asyncio.sleep(max(0.0, self._looked + LOOK_SECONDS - monotonic()))
        self._coming, self._looked = None, monotonic()
        await self.refresh()

    async def flush(self) -> None:
        meter = self.gateway.meter
        batch, used = meter.dirty(), meter.take_used()
        try:
            if batch or used:
                await self.store.flush(batch, used)
        except Away as away:
            meter.put_back(batch)
            meter.used = {**used, **meter.used}
            self.flushes.failed(away)
            return
        except asyncio.CancelledError:
            meter.put_back(batch)  # whether it was written is unknown; writing again changes nothing
            raise
        meter.written()
        self.flushes.worked()

    async def remember(self, flush: Callable[[Store], Awaitable[None]]) -> None:
        """Have remembered requests written, each with its passport."""
        try:
            await flush(self.store)
        except Away as away:
            self.memories.failed(away)
        else:
            self.memories.worked()

    async def publish(self, *, left: bool = False) -> None:
        gateway = self.gateway
        now = gateway.meter.now()
        queued, sockets = gateway.dispatch.queued, gateway.sockets
        message = tick(gateway.meter, gateway.table.routes, gateway.balancer.in_flight, queued, sockets, now=now)
        if left:
            message["left"] = True
        try:
            await self.store.publish(gateway.meter.totals.source, orjson.dumps(message))
        except Away as away:
            self.ticks.failed(away)
        else:
            self.ticks.worked()

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body of `/healthz`: 503 until routes were read and once draining; else 200, and
        "degraded" with what is wrong while traffic goes on without a part."""
        reason = ""
        if self.draining:
            reason = "The gateway is draining."
        elif self.routes.last is None:
            why = f": {self.routes.problem}" if self.routes.problem else ""
            reason = f"The routes have not been read from the database yet{why}."
        spool = self.gateway.meter.spool
        wrong = [pulse.name for pulse in (self.routes, self.flushes, self.ticks, self.memories) if pulse.problem]
        wrong += ["Spool"] if spool.problem else []
        wrong += ["Counting limits together"] if self.limiter.problem else []
        age = self.routes.age()
        if age is not None and age > STALE_SECONDS and self.routes.name not in wrong:
            wrong.append(self.routes.name)
        return (503 if reason else 200), {
            "status": "unavailable" if reason else "degraded" if wrong else "ok",
            "reason": reason or None,
            "degraded": wrong,
            "source": spool.source,
            "endpoints": len(self.gateway.table),
            "routes": self.routes.as_json(),
            "flush": {**self.flushes.as_json(), "unwritten_rows": self.gateway.meter.unwritten()},
            "spool": {
                "failures": spool.failures,
                "problem": spool.problem or None,
                "replayed": self.gateway.meter.replayed,
            },
            "valkey": self.ticks.as_json(),
            "limits": self.limiter.health(),
            "in_flight": sum(self.gateway.balancer.in_flight.values()),
            "queued": sum(self.gateway.dispatch.queued.values()),
        }

    def duties(self) -> list[Duty]:
        """What is done again and again, as metrics tell it."""
        pulses = {"routes": self.routes, "counts": self.flushes, "valkey": self.ticks, "passports": self.memories}
        return [pulse.as_duty(name) for name, pulse in pulses.items()]

    # ── loops ────────────────────────────────────────────────────────────────────────────────────
    async def _refreshing(self) -> None:
        await every(REFRESH_SECONDS, self.refresh)

    async def _flushing(self) -> None:
        async def write() -> None:
            await self.flush()
            await self.remember(self.telemetry.flush)

        await every(FLUSH_SECONDS, write)

    async def _ticking(self) -> None:
        async def beat() -> None:
            self.gateway.pool.sweep()
            await self.publish()

        await every(TICK_SECONDS, beat)

    async def _limiting(self) -> None:
        await every(LIMITS_SECONDS, self.limiter.look)

    async def _listening(self) -> None:
        while True:
            try:
                async for _ in self.store.listen():
                    await self.refresh()
            except Away:
                pass  # the refresh every second finds what no ring told
            await asyncio.sleep(REFRESH_SECONDS)


async def every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    """Act now and then at fixed distances, however long an act takes and whether it fails."""
    due = monotonic()
    while True:
        try:
            await act()
        except Exception:
            log.exception("What is done every %g s failed this time", seconds)
        due = max(due + seconds, monotonic())
        await asyncio.sleep(due - monotonic())
