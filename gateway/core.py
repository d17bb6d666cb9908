"""Who may, and what for: the one place where a request is admitted, over any server that can carry a `Client`.

Decisions need no wait, but for two that are rare: a key that nobody knows may have been made a moment ago, and a
caller with quotas may have to be counted elsewhere. Those two are tasks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway import errors
from gateway.admit import HEALTH, Admitted, Place, Request, admit, allowed, locate
from gateway.auth import UNKNOWN_KEY
from gateway.awake import Awake
from gateway.balance import Balancer
from gateway.bodies import Sampler
from gateway.client import Client, Limits
from gateway.contract import Jobs, Limiter, Taken
from gateway.errand import ASYNC, Errand
from gateway.errors import Refusal
from gateway.exchange import JSON, Exchange
from gateway.meter import Meter
from gateway.passage import Passage
from gateway.passing import passes
from gateway.pool import Pool
from gateway.queue import Dispatch, hopeless
from gateway.routes import Route, RouteTable
from gateway.tunnel import Socket

log = logging.getLogger("gateway")
ENCODED = Refusal(415, "unsupported_encoding", "Send the body without a Content-Encoding.")
LOOK_SECONDS = 5.0  # for keys to be read anew; a database that hangs must not hold its callers
NO_STORE = ((b"cache-control", b"no-store"),)


class Gateway:
    """The data plane's one state: who may call, where to, and what was counted."""

    def __init__(
        self, meter: Meter, clock: Callable[[], float], pool: Pool | None = None, limits: Limits | None = None
    ) -> None:
        self.table = RouteTable()
        self.turn = 1  # goes up with each table: what was decided by an older one is decided anew
        self.meter = meter
        self.clock = clock
        self.balancer = Balancer(clock)
        self.dispatch = Dispatch(self.balancer, clock, self._wake)
        self.pool = pool or Pool(clock)
        self.awake = Awake(self.pool.loop)
        self.limits = limits or Limits()
        self.look_again: Callable[[], Awaitable[None]] | None = None  # read keys anew; the keeper's
        self.wake: Callable[[Route], None] | None = None  # an endpoint that sleeps; the keeper's
        self.limiter: Limiter | None = None
        self.jobs: Jobs | None = None
        self.proxies = 0  # trusted ones in front
        self.private: frozenset[bytes] = frozenset()  # names of the console's cookies, which no instance sees
        self.sockets: dict[int, int] = {}  # open ones by endpoint
        self.refused: dict[str, int] = {}  # calls that were not admitted, by the error's code
        self.sampler = Sampler()
        self.address_of: Callable[[Client], str] | None = None  # where a call came from, if that is to be told
        self._tasks: set[asyncio.Task[None]] = set()

    def take_table(self, table: RouteTable) -> None:
        """The world as it stands now."""
        self.table, self.turn = table, self.turn + 1
        self.dispatch.table_changed(table)

    def handle(self, client: Client) -> None:
        """Answer one request whole. What happens to it after admission is always counted, once."""
        request = client.request
        if request.decided == self.turn and request.admitted is not None and self.meter.clock() < request.expires:
            self._begin(client, request.admitted)
            return
        place = locate(self.table, request.path, request.host)
        if place is None:
            known = ("/e/<endpoint>/v1/…", "/healthz")
            self._turn_away(client, errors.unknown_path(request.path, known))
        elif place.rest == HEALTH:
            tell_health(client, place)
        else:
            admitted = self._admit(client, place)
            if isinstance(admitted, Admitted):
                self._begin(client, admitted)
            elif admitted.code == UNKNOWN_KEY and self.look_again is not None:
                self.spawn(self._admit_anew(client, place, self.look_again))
            else:
                self._turn_away(client, admitted)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what has to wait, beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(self, client: Client, admitted: Admitted) -> None:
        if self.jobs is not None and admitted.rest.startswith(ASYNC):
            client.owner = errand = Errand(self, client, admitted, self.jobs)
            errand.begin()
            return
        self.awake.met(self.awake.request)
        self.awake.calls += 1
        client.owner = exchange = self._exchange(client, admitted)
        try:
            if admitted.route.bodies_one_in and not client.request.socket:
                self.sampler.consider(exchange)
            exchange.begin()
        except Exception as failure:  # noqa: BLE001 (whatever it is, this request ends by it and no other)
            exchange.broke(failure)

    def _exchange(self, client: Client, admitted: Admitted) -> Exchange:
        if not admitted.target:
            return Exchange(self, client, admitted)
        behind = client.behind
        return Passage(self, client, admitted) if behind is None else Socket(self, client, admitted, behind)

    def _admit(self, client: Client, place: Place) -> Admitted | Refusal:
        """Decided once for all calls with this head, for as long as the table stands."""
        request = client.request
        admitted = admit(self.table, place, request.authorization, at=datetime.now(UTC))
        if isinstance(admitted, Admitted):
            expires_at = admitted.key.expires_at
            admitted = judged(request, admitted)
            request.decided, request.admitted = self.turn, admitted
            request.expires = expires_at.timestamp() if expires_at is not None else float("inf")
        return admitted

    async def _admit_anew(self, client: Client, place: Place, look_again: Callable[[], Awaitable[None]]) -> None:
        """An unknown key may have been made since keys were last read, so that is not refused unseen."""
        client.owner = waiting = Waiting(client)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await look_again()
        except Exception as problem:  # noqa: BLE001 (whatever it is, what is known has to do)
            log.warning("Keys could not be read anew: %r", problem)
        client.owner = None
        if waiting.gone:
            client.over()
            return
        place = locate(self.table, client.request.path, client.request.host) or place
        admitted = self._admit(client, place)
        if isinstance(admitted, Admitted):
            self._begin(client, admitted)
        else:
            self._turn_away(client, admitted)

    def _turn_away(self, client: Client, refusal: Refusal) -> None:
        self.count_refused(refusal)
        refuse(client, refusal)

    def count_refused(self, refusal: Refusal) -> None:
        """A call that never became a request of an endpoint, so nothing else counts it."""
        self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1

    def limit(self, exchange: Exchange) -> None:
        """Let its quotas judge a request, and tell it."""
        if self.limiter is None:
            exchange.place()
            return
        key, route = exchange.admitted.key, exchange.admitted.route
        tokens = exchange.prepared.tokens(exchange.admitted.tokens, route.context_length)
        found = self.limiter.take_now(key, route, tokens)
        if found is not None:
            exchange.limited(found)
        else:
            self.spawn(self._limit(exchange, self.limiter.take(key, route, tokens)))

    async def _limit(self, exchange: Exchange, asking: Awaitable[Taken | Refusal]) -> None:
        try:
            exchange.limited(await asking)
        except Exception as failure:  # noqa: BLE001
            exchange.broke(failure)

    def _wake(self, route: Route) -> None:
        if self.wake is not None:
            self.wake(route)


def judged(request: Request, admitted: Admitted) -> Admitted:
    """The same, and what the rest of the head says: whether it passes as it is, and what speaks against it."""
    target = passes(admitted, request)
    if isinstance(target, Refusal):
        return admitted._replace(refusal=target)
    refusal = (None if target else allowed(admitted.rest, request.method)) or hopeless(admitted.route)
    if refusal is None and not target and request.encoding not in (None, "identity"):
        refusal = ENCODED
    return admitted._replace(refusal=refusal, target=target)


class Waiting:
    """The owner of a call while nobody works on it yet."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.gone = False

    def caller_left(self) -> None:
        self.gone = True

    def cut(self) -> None:
        self.gone = True

    def body_came(self) -> None:
        """It is taken later."""

    def caller_ready(self) -> None:
        """Nothing was sent."""

    def look(self, now: float) -> None:
        """The one who waits has a limit of its own."""


def refuse(client: Client, refusal: Refusal) -> None:
    """An answer of our own, whole."""
    client.answer(refusal.status, JSON, refusal.body(), refusal.headers)
    client.over()


def tell_health(client: Client, place: Place) -> None:
    """Whether the endpoint can be called now; needs no key and says nothing but its state."""
    if place.route is None:
        refuse(client, errors.unknown_endpoint(place.name))
        return
    ready = bool(place.route.ready) and place.route.desired == "running"
    body = orjson.dumps({"status": "ready" if ready else place.route.state})
    client.answer(200 if ready else 503, JSON, body, NO_STORE)
    client.over()
