"""A world in seconds for the autoscaler: callers, gateways that count, instances that take their time.

Gateways hold an instance to `target` requests at once and let the rest wait; where nothing is wanted, a request
that waits wakes the first. What is drained gets no new
request and ends when it carries nothing by the count that the gateways make known, as the planner does it,
or at the drain's deadline. A request that was still being answered then was killed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from endpoints.autoscale import Decision, History, Policy, Signal, desired, is_whole, listen
from endpoints.autoscale.hearing import Heard

START = datetime(2026, 1, 1, tzinfo=UTC)
PACE = 2  # seconds between two decisions
GRACE, DEADLINE = 3, 1800  # seconds: of a drain

Arrivals = Callable[[int], Iterable[float]]  # by second: how long each new request takes


@dataclass
class Request:
    seconds: float
    gateway: int
    ends: float | None = None


@dataclass
class Server:
    number: int
    ready_at: int
    requests: list[Request] = field(default_factory=list)
    draining_at: int | None = None


@dataclass(frozen=True)
class Change:
    at: int
    before: int
    after: int
    why: str


class World:
    def __init__(
        self,
        policy: Policy,
        arrivals: Arrivals,
        *,
        wanted: int = 0,
        start_seconds: int = 5,
        gateways: int = 2,
        silent: Callable[[int, int], bool] = lambda gateway, now: False,
        use: Callable[[Server], tuple[float | None, float | None]] = lambda server: (None, None),
        deploying: Callable[[int], bool] = lambda now: False,
        seed: int = 1,
    ) -> None:
        self.policy, self.arrivals, self.use, self.silent, self.deploying = (
            policy,
            arrivals,
            use,
            silent,
            deploying,
        )
        self.start_seconds, self.gateways = start_seconds, gateways
        self.draw = random.Random(seed)
        self.now = 0
        self.wanted = wanted or policy.min
        self.servers = [Server(number, 0) for number in range(self.wanted)]
        self.waiting: list[Request] = []
        self.history: History | None = None
        self.heard: Heard = {}
        self.changes: list[Change] = []
        self.wakes: list[int] = []
        self.killed = self.done = self.longest_queue = self.peak = 0
        self.instance_seconds = 0
        self.numbers = self.wanted

    # ── time ─────────────────────────────────────────────────────────────────────────────────────
    def run(self, seconds: int) -> World:
        for _ in range(seconds):
            self._second()
        return self

    def _second(self) -> None:
        for server in self.servers:
            left = [one for one in server.requests if one.ends is not None and one.ends > self.now]
            self.done += len(server.requests) - len(left)
            server.requests = left
        self.waiting += [Request(s, self.draw.randrange(self.gateways)) for s in self.arrivals(self.now)]
        self._hand_out()
        if self.waiting and self.wanted == 0:
            self.wanted, self.wakes = 1, [*self.wakes, self.now]
        self._end_drained()
        self.peak = max(self.peak, self.load)
        self.longest_queue = max(self.longest_queue, len(self.waiting))
        self.instance_seconds += len(self.servers)
        if self.now % PACE == 0:
            self._decide()
            self._steer()
        self.now += 1

    def _hand_out(self) -> None:
        while self.waiting:
            open_ = [one for one in self.ready if len(one.requests) < self.policy.target]
            if not open_:
                return
            chosen = min(self.draw.sample(open_, min(2, len(open_))), key=lambda one: len(one.requests))
            request = self.waiting.pop(0)
            request.ends = self.now + request.seconds
            chosen.requests.append(request)

    def _end_drained(self) -> None:
        for server in [one for one in self.servers if one.draining_at is not None]:
            waited = self.now - (server.draining_at or 0)
            known = [one for one in server.requests if not self.silent(one.gateway, self.now)]
            if server.ready_at > self.now or waited >= DEADLINE or (waited >= GRACE and not known):
                self.killed += len(server.requests)
                self.servers.remove(server)

    def _decide(self) -> None:
        if self.wanted == 0:
            return  # what sleeps is not asked about
        at = START + timedelta(seconds=self.now)
        signal = self.signal(at)
        if self.history is None:
            self.history = History.begin(signal, at) if signal.in_flight is not None else None
            return
        self.history = History.from_json(self.history.seen(signal, self.policy, at).as_json())
        decision = desired(signal, self.policy, self.history, at)
        if decision:
            self.history = self.history.applied(decision, at)
            self._change(decision)

    def _change(self, decision: Decision) -> None:
        self.changes.append(Change(self.now, self.wanted, decision.wanted, decision.why))
        self.wanted = decision.wanted

    def _steer(self) -> None:
        """As the planner does: start what is missing, drain the emptiest of what is too many."""
        staying = [one for one in self.servers if one.draining_at is None]
        for _ in range(self.wanted - len(staying)):
            self.servers.append(Server(self.numbers, self.now + self.start_seconds))
            self.numbers += 1
        order = sorted(staying, key=lambda one: (one.ready_at <= self.now, len(one.requests), -one.number))
        for server in order[: max(0, len(staying) - self.wanted)]:
            server.draining_at = self.now

    # ── what is seen ─────────────────────────────────────────────────────────────────────────────
    @property
    def ready(self) -> list[Server]:
        return [one for one in self.servers if one.ready_at <= self.now and one.draining_at is None]

    @property
    def load(self) -> int:
        return len(self.waiting) + sum(len(one.requests) for one in self.servers)

    def signal(self, at: datetime) -> Signal:
        speaking = [one for one in range(self.gateways) if not self.silent(one, self.now)]
        self.heard = listen(self.heard, [str(one) for one in speaking], at)
        busy = [sum(each.gateway in speaking for each in one.requests) for one in self.ready]
        drained = [one for one in self.servers if one.draining_at is not None]
        used = [self.use(one) for one in self.ready]
        return Signal(
            in_flight=sum(busy) + sum(each.gateway in speaking for one in drained for each in one.requests)
            if speaking
            else None,
            queued=sum(one.gateway in speaking for one in self.waiting),
            wanted=self.wanted,
            ready=len(busy),
            starting=sum(one.ready_at > self.now and one.draining_at is None for one in self.servers),
            draining=len(drained),
            idle=busy.count(0),
            cpu=_mean([cpu for cpu, _ in used]),
            memory=_mean([memory for _, memory in used]),
            whole=is_whole(self.heard, [str(one) for one in speaking]),
            deploying=self.deploying(self.now),
        )

    # ── what is asserted ─────────────────────────────────────────────────────────────────────────
    @property
    def turns(self) -> int:
        """How often the direction changed."""
        ways = [one.after > one.before for one in self.changes]
        return sum(one != other for one, other in pairwise(ways))

    @property
    def most(self) -> int:
        return max([one.after for one in self.changes], default=self.wanted)


def _mean(values: list[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else None


# ── callers ──────────────────────────────────────────────────────────────────────────────────────
def steadily(in_flight: Callable[[int], float], *, seconds: float = 4, seed: int = 1) -> Arrivals:
    """Enough requests of so many seconds to have about that many in flight, arriving by chance."""
    draw = random.Random(seed)

    def arrive(now: int) -> list[float]:
        rate = max(0.0, in_flight(now)) / seconds
        return [seconds] * (int(rate) + (draw.random() < rate % 1))

    return arrive


def at_once(at: int, requests: int, seconds: float) -> Arrivals:
    return lambda now: [seconds] * requests if now == at else []


def both(*callers: Arrivals) -> Arrivals:
    return lambda now: [each for one in callers for each in one(now)]
