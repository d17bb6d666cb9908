"""Who is answered now, who waits, and for how long: one bounded queue per endpoint, in order of coming.

Callers wait for two things. While every ready instance carries as many requests as it may, for one of them to
end: at most `queue_seconds`. While none is ready but one is on its way, for it: at most `wake_seconds`, and
where the endpoint sleeps, the first of them wakes it. An endpoint that can't become ready by itself (stopped,
failed, never served yet, or short of room) keeps nobody waiting: it refuses at once, with what is known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from gateway import errors
from gateway.admit import available
from gateway.balance import Balancer
from gateway.errors import Refusal
from gateway.routes import Route, RouteTable, Upstream

WAKE_AGAIN_SECONDS = 5.0  # after a wake that showed no result
UNREACHABLE = errors.not_ready(
    "No instance of the endpoint takes connections right now.", code="no_instance_reachable", retry_after=2
)


class Waiter(Protocol):
    """A request that may have to wait. One of the two is called, once, unless it left before."""

    def placed(self, instance: Upstream) -> None:
        """This instance answers it, counted as busy with it from here."""

    def turned_away(self, refusal: Refusal) -> None:
        """It is not answered."""


class Line:
    """Those who wait for one endpoint, in order: when each came, and which instances it has tried."""

    __slots__ = ("letting_in", "open_since", "route", "waiting")

    def __init__(self, route: Route, now: float) -> None:
        self.route = route
        self.waiting: OrderedDict[Waiter, tuple[float, Collection[str]]] = OrderedDict()
        self.open_since = now if route.ready else None  # since when an instance has been ready
        self.letting_in = False

    def follow(self, route: Route, now: float) -> None:
        self.route = route
        if not route.ready:
            self.open_since = None
        elif self.open_since is None:
            self.open_since = now

    def ends(self, came: float) -> float:
        """When one that came then has waited long enough, as the endpoint stands now."""
        admission = self.route.admission
        if self.open_since is None:
            return came + admission.wake_seconds
        ends = max(came, self.open_since) + admission.queue_seconds
        return min(ends, came + admission.wake_seconds + admission.queue_seconds)


class Dispatch:
    """Places requests on instances. `wake` is called at most once per sleep, and again when nothing came of it."""

    def __init__(self, balancer: Balancer, clock: Callable[[], float], wake: Callable[[Route], None]) -> None:
        self.balancer = balancer
        self.clock = clock
        self.wake = wake
        self.table: RouteTable | None = None
        self._lines: dict[int, Line] = {}  # by endpoint; only those with somebody in them
        self._line_of: dict[Waiter, Line] = {}
        self._woken: dict[int, float] = {}  # endpoints that were woken and sleep still, and when

    @property
    def queued(self) -> Mapping[int, int]:
        """How many wait, by endpoint."""
        return {endpoint_id: len(line.waiting) for endpoint_id, line in self._lines.items()}

    # ── what a request does ──────────────────────────────────────────────────────────────────────
    def ask(self, route: Route, waiter: Waiter, tried: Collection[str] = ()) -> Upstream | Refusal | None:
        """An instance, counted as busy; a refusal; or None, and one of the waiter's two is called later.

        `tried`: names of instances that took no connection for this request; one that tried goes to the
        front, for it had its turn before.
        """
        current = self.table is None or self.table.routes.get(route.name) is route
        if current and route.endpoint_id not in self._lines and route.desired == "running":
            cap = route.capacity_per_instance
            if (instance := self.balancer.take(route.ready, cap=cap, tried=tried)) is not None:
                return instance
        return self._without_room(self._as_it_stands(route), waiter, tried)

    def leave(self, waiter: Waiter) -> None:
        """Its caller hung up. One that does not wait is none of ours."""
        if waiter in self._line_of:
            self._step_out(waiter)

    def done(self, route: Route, instance: Upstream, *, sound: bool | None) -> None:
        """A request has ended there. `sound`: False for a failure of the instance (lost, timed out, 5xx),
        None where its caller left before the answer, which says nothing of it."""
        self.balancer.release(instance.name)
        if not sound or self.balancer.troubled:
            self.balancer.judge(instance.name, sound, route.ready)
        if (line := self._lines.get(route.endpoint_id)) is not None:
            self._let_in(line)

    def refused(self, route: Route, instance: Upstream) -> None:
        """The instance took no connection: nothing began there."""
        self.balancer.release(instance.name)
        self.balancer.eject(instance.name)
        if (line := self._lines.get(route.endpoint_id)) is not None:
            self._let_in(line)

    # ── what the world does ──────────────────────────────────────────────────────────────────────
    def table_changed(self, table: RouteTable) -> None:
        """Routes were read anew: let in where an instance became ready, turn away where none will."""
        self.table = table
        now = self.clock()
        if self.balancer.troubled:
            self.balancer.forget({one.name for route in table.routes.values() for one in route.instances})
        if self._woken:
            asleep = {route.endpoint_id for route in table.routes.values() if sleeps(route)}
            self._woken = {one: at for one, at in self._woken.items() if one in asleep}
        for endpoint_id, line in list(self._lines.items()):
            route = self._as_it_stands(line.route)
            refusal = route if isinstance(route, Refusal) else hopeless(route)
            if isinstance(route, Route):
                line.follow(route, now)
            if refusal is not None:
                self._send_away(line, refusal)
            elif endpoint_id in self._lines:
                self._let_in(line)

    def look(self) -> None:
        """End waits that are over, fill what became free unseen (a rest that ended), wake what sleeps on."""
        now = self.clock()
        for line in list(self._lines.values()):
            over = [waiter for waiter, (came, _) in line.waiting.items() if line.ends(came) <= now]
            for waiter in over:
                if self._line_of.get(waiter) is line:
                    self._step_out(waiter)
                    waiter.turned_away(timed_out(line.route))
            if line.waiting:
                self._let_in(line)
            if line.waiting:
                self._wake(line.route)

    # ── parts ────────────────────────────────────────────────────────────────────────────────────
    def _as_it_stands(self, route: Route) -> Route | Refusal:
        """The endpoint by the newest table: a request may have read its body for longer than that is old."""
        if self.table is None:
            return route
        found = self.table.named(route.name)
        if found is None or found.endpoint_id != route.endpoint_id:
            return errors.unknown_endpoint(route.name)
        return found

    def _without_room(
        self, route: Route | Refusal, waiter: Waiter, tried: Collection[str]
    ) -> Upstream | Refusal | None:
        if isinstance(route, Refusal):
            return route
        if (refusal := hopeless(route)) is not None:
            return refusal
        if route.ready and all(one.name in tried for one in route.ready):
            return UNREACHABLE
        line = self._lines.get(route.endpoint_id)
        if line is None:
            cap = route.capacity_per_instance
            if (instance := self.balancer.take(route.ready, cap=cap, tried=tried)) is not None:
                return instance
        self._wake(route)
        if (len(line.waiting) if line is not None else 0) >= places(route):
            return full(route)
        if line is None:
            line = self._lines[route.endpoint_id] = Line(route, self.clock())
        line.waiting[waiter] = self.clock(), frozenset(tried)
        if tried:
            line.waiting.move_to_end(waiter, last=False)
        self._line_of[waiter] = line
        return None

    def _wake(self, route: Route) -> None:
        if not sleeps(route):
            return
        now = self.clock()
        woken = self._woken.get(route.endpoint_id)
        if woken is None or now - woken >= WAKE_AGAIN_SECONDS:
            self._woken[route.endpoint_id] = now
            self.wake(route)

    def _step_out(self, waiter: Waiter) -> None:
        line = self._line_of.pop(waiter)
        del line.waiting[waiter]
        if not line.waiting:
            del self._lines[line.route.endpoint_id]

    def _let_in(self, line: Line) -> None:
        """Place as many as there is room for. Whoever is placed may end at once, which is seen here too."""
        if line.letting_in:
            return
        line.letting_in = True
        try:
            while (found := self._next(line)) is not None:
                waiter, answer = found
                self._step_out(waiter)
                if isinstance(answer, Refusal):
                    waiter.turned_away(answer)
                else:
                    waiter.placed(answer)
        finally:
            line.letting_in = False

    def _next(self, line: Line) -> tuple[Waiter, Upstream | Refusal] | None:
        """The first that can be placed, or that has tried all there are; None when there is no room."""
        ready, cap = line.route.ready, line.route.capacity_per_instance
        for waiter, (_, tried) in line.waiting.items():
            if (instance := self.balancer.take(ready, cap=cap, tried=tried)) is not None:
                return waiter, instance
            if not tried:
                return None
            if ready and all(one.name in tried for one in ready):
                return waiter, UNREACHABLE
        return None

    def _send_away(self, line: Line, refusal: Refusal) -> None:
        for waiter in list(line.waiting):
            if self._line_of.get(waiter) is line:
                self._step_out(waiter)
                waiter.turned_away(refusal)


def hopeless(route: Route) -> Refusal | None:
    """Why nobody should wait for it: no instance is ready, and none will be without somebody's doing."""
    return None if route.desired == "running" and route.awaited else available(route)


def sleeps(route: Route) -> bool:
    return route.asleep and not route.ready


def places(route: Route) -> int:
    """How many may wait for it; while it serves, none where the time to wait is none."""
    admission = route.admission
    return admission.queue_limit if admission.queue_seconds or not route.ready else 0


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────
def full(route: Route) -> Refusal:
    limit, seconds = places(route), 2 if route.ready else 10
    doing = "answers as many requests as it can" if route.ready else "is waking up"
    waiting = f"{limit} more wait already" if limit else "its queue is switched off"
    what = f"{route.name} {doing} and {waiting}. Try again in a moment."
    return Refusal(429, "queue_full", what, type="rate_limit_error", headers=_after(seconds))


def timed_out(route: Route) -> Refusal:
    if route.ready:
        what = f"{route.name} was busy for all of the {route.admission.queue_seconds:g} s that a request may wait."
        return errors.not_ready(what, code="queue_timeout", retry_after=5)
    what = (
        f"{route.name} was not ready within the {route.admission.wake_seconds:g} s that a request may wait for it."
    )
    return errors.not_ready(what, code="cold_start_timeout", retry_after=10)


def _after(seconds: int) -> errors.Headers:
    return ((b"retry-after", str(seconds).encode()),)
