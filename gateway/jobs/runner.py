"""Runs what is queued, within a gateway: claims it at endpoints' spare concurrency and asks as a caller would.

It lives in the gateway because the queue is let through where all traffic passes: it sees what is in flight now,
takes the same path in memory, with the limits of the key that asked, and needs no credential that could be
stolen. Any gateway may run anything; one that dies loses its leases, and another takes over.

What it asks for is counted in the charts and never billed; billed is the result, where it is stored.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from gateway.admit import Admitted, admitted, allowed
from gateway.auth import authorise
from gateway.contract import Away
from gateway.core import Gateway
from gateway.errors import Refusal, no_key
from gateway.jobs import queue
from gateway.jobs.caller import ask
from gateway.jobs.database import Database
from gateway.jobs.judge import KEY_GONE, Again, End, judge, refused
from gateway.jobs.queue import Run
from gateway.queue import hopeless
from gateway.routes import Key, Route, RouteTable
from gateway.totals import UNBILLED

log = logging.getLogger("gateway.jobs")

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 1.0  # between tries to store a result while the database is away
UNROUTED = Again(5.0, False, None, "not_routed")  # this gateway doesn't know the endpoint yet, or any more
PERSON = "person:"  # begins the holder of a person's token
ENDING = Again(0.0, False, None, "gateway_ending")


class Runner:
    """`asking` are the runs whose answer is awaited, by the token of their lease."""

    def __init__(self, database: Database, gateway: Gateway, source: str, draining: Callable[[], bool]) -> None:
        self.database = database
        self.gateway = gateway
        self.source = source
        self.draining = draining
        self.asking: dict[uuid.UUID, tuple[Run, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._away = ""

    def start(self) -> None:
        self._loop = asyncio.create_task(self._looking())

    def wake(self) -> None:
        """Something was queued or cancelled here: look now."""
        self._woken.set()

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    async def stop(self) -> None:
        """Hang up on what still runs, and queue it again."""
        if self._loop is not None:
            self._loop.cancel()
        left = [run for run, _ in self.asking.values()]
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *([self._loop] if self._loop else []), return_exceptions=True)
        for run in left:
            with contextlib.suppress(Away):  # then its lease ends by itself
                await self.database.do(lambda run=run: queue.give_back(run, ENDING))  # type: ignore[misc]

    async def look(self) -> None:
        """Hang up where the lease is gone, then take what there is room for. Raises Away."""
        await self._renew()
        if self.draining():
            return
        found = await self.database.do(queue.waiting)
        if not found:
            return
        others = await self.database.do(lambda: queue.elsewhere(self.source))
        routes = {route.endpoint_id: route for route in self.gateway.table.routes.values()}
        for endpoint_id in found:
            route = routes.get(endpoint_id)
            if route is not None:
                await self._claim(route, others)

    async def _renew(self) -> None:
        mine = dict(self.asking)
        if not mine:
            return
        still = await self.database.do(lambda: queue.renew(list(mine)))
        for token, (_, task) in mine.items():
            if token not in still and token in self.asking:
                task.cancel()

    async def _claim(self, route: Route, others: Mapping[str, int]) -> None:
        here = self.gateway.balancer.in_flight
        busy = sum(here.get(one.name, 0) + others.get(one.name, 0) for one in route.instances)
        lanes = capacity(route)
        if lanes <= busy:
            return
        runs = await self.database.do(lambda: queue.claim(route.endpoint_id, capacity=lanes, busy=busy))
        for run in runs:
            task = asyncio.create_task(self._run(run))
            self.asking[run.token] = run, task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _looking(self) -> None:
        while True:
            try:
                await self.look()
                self._reached()
            except Away as away:
                self._missed(away)
            except Exception:
                log.exception("A look at the queue failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()
            self._woken.clear()

    def _reached(self) -> None:
        if self._away:
            log.warning("The queue of asynchronous requests can be read again")
        self._away = ""

    def _missed(self, away: Away) -> None:
        if not self._away:
            log.warning("The queue of asynchronous requests can't be read: %s", away)
        self._away = str(away)

    # ── one run ──────────────────────────────────────────────────────────────────────────────────
    async def _run(self, run: Run) -> None:
        try:
            verdict = await self._verdict(run)
        finally:
            self.asking.pop(run.token, None)
        while True:
            try:
                await self.database.do(lambda: _keep(run, verdict))
                break
            except Away:
                await asyncio.sleep(AGAIN_SECONDS)
        self.wake()  # there is room for another

    async def _verdict(self, run: Run) -> End | Again:
        admitted = self._admitted(run)
        if not isinstance(admitted, Admitted):
            return admitted
        answer = await ask(self.gateway, admitted, run.body, run.request_id)
        if isinstance(answer, End):
            return answer
        return judge(answer, asked=run.body, failures=run.failures, revision_id=admitted.route.revision_id)

    def _admitted(self, run: Run) -> Admitted | End | Again:
        """The same judgement as at the door, of the key as it is now."""
        table = self.gateway.table
        route = next((one for one in table.routes.values() if one.endpoint_id == run.endpoint_id), None)
        if route is None:
            return UNROUTED
        key = _asker(run, table)
        if key is None:
            return KEY_GONE
        refusal = _expired(key) or authorise(key, route)
        if refusal is not None:
            return refused(refusal.status, refusal.body())
        refusal = allowed(run.path, "POST") or hopeless(route)
        return admitted(replace(key, id=UNBILLED), route, run.path, refusal)


def _asker(run: Run, table: RouteTable) -> Key | None:
    """Who asked for it, if they still may ask at all."""
    if run.key_id is not None:
        return table.numbered.get(run.key_id)
    if run.person_id is None or (run.person_id, run.project_id) not in table.trust.callers:
        return None
    return Key(None, run.project_id, holder=f"{PERSON}{run.person_id}")


def capacity(route: Route) -> int:
    """How many requests an endpoint carries now; one of those that wait may wake one that sleeps."""
    if route.desired != "running":
        return 0
    if route.ready:
        return len(route.ready) * max(1, route.capacity_per_instance)
    return 1 if route.asleep else 0


def _keep(run: Run, verdict: End | Again) -> bool:
    return queue.finish(run, verdict) if isinstance(verdict, End) else queue.give_back(run, verdict)


def _expired(key: Key) -> Refusal | None:
    if key.expires_at is None or key.expires_at > datetime.now(UTC):
        return None
    message = "The API key that asked for this expired before its turn came."
    return no_key(message, code="expired_api_key")
