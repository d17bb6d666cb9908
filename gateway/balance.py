"""Which instance answers: the less busy of two drawn by chance, among those with room that answer soundly.

In-flight counts are this process's own. Two choices keep several gateways from all running to the one that
each believes idle, and cost two look-ups. An instance that refuses a connection, or fails several requests
in a row, rests for a growing time; then one request probes it, and its end decides.
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from gateway.routes import Upstream

FAILURES = 5  # in a row, of requests that were ours to answer
REST_SECONDS = 2.0  # the first time, twice as long after each probe that failed
LONGEST_REST_SECONDS = 60.0


@dataclass(slots=True)
class Trouble:
    """What is held against an instance. `until` is 0 while it is only being counted; once it rests, the
    moment from which it may be probed. It stays out of turn until a request has ended soundly."""

    failures: int = 0
    rests: int = 0
    until: float = 0.0
    probing: bool = False

    def rest(self, now: float) -> None:
        self.until = now + min(LONGEST_REST_SECONDS, REST_SECONDS * 2.0 ** min(self.rests, 6))
        self.rests += 1
        self.probing = False


class Balancer:
    """Counts requests in flight by instance, and knows which of them are in trouble."""

    def __init__(self, clock: Callable[[], float], *, draw: random.Random | None = None) -> None:
        self.clock = clock
        self.draw = (draw or random.Random()).random  # noqa: S311 (a spread, not a secret)
        self.in_flight: dict[str, int] = {}
        self.troubled: dict[str, Trouble] = {}

    def take(self, ready: Sequence[Upstream], *, cap: int = 0, tried: Collection[str] = ()) -> Upstream | None:
        """An instance, counted as busy with one more; None when none that was not tried has room.

        Whoever takes must release. `cap` is the most requests that one instance carries; 0 is no cap.
        """
        if self.troubled or tried:
            ready = self._sound(ready, cap, tried)
        carries, count = self.in_flight.get, len(ready)
        if count > 1:
            at = int(self.draw() * count)
            chosen, other = ready[at], ready[(at + 1 + int(self.draw() * (count - 1))) % count]
            load, others = carries(chosen.name, 0), carries(other.name, 0)
            if others < load:
                chosen, load = other, others
            if cap and load >= cap and count > 2:
                chosen = min(ready, key=self.load)
                load = self.load(chosen)
        elif count:
            chosen = ready[0]
            load = carries(chosen.name, 0)
        else:
            return None
        if cap and load >= cap:
            return None
        self.in_flight[chosen.name] = load + 1
        return chosen

    def release(self, name: str) -> None:
        left = self.in_flight[name] - 1
        if left:
            self.in_flight[name] = left
        else:
            del self.in_flight[name]

    def load(self, one: Upstream) -> int:
        return self.in_flight.get(one.name, 0)

    # ── what speaks against an instance ──────────────────────────────────────────────────────────
    def judge(self, name: str, sound: bool | None, among: Sequence[Upstream]) -> None:
        """A request ended there. `sound` None says nothing of the instance: its caller left before the answer.

        After `FAILURES` in a row the instance rests, unless half of those it is `among` rest already.
        """
        if sound:
            self.restore(name)
            return
        trouble = self.troubled.get(name)
        if sound is None:
            if trouble is not None:
                trouble.probing = False
            return
        if trouble is None:
            trouble = self.troubled[name] = Trouble()
        trouble.failures += 1
        outlier = not trouble.until and trouble.failures >= FAILURES and self._may_rest(among)
        if trouble.probing or outlier:
            trouble.rest(self.clock())

    def eject(self, name: str) -> None:
        """It took no connection, so others should not try it now. One that rests already rests no longer."""
        trouble = self.troubled.setdefault(name, Trouble())
        if trouble.until <= self.clock():
            trouble.rest(self.clock())

    def restore(self, name: str) -> None:
        """It answered: whatever was held against it is over."""
        self.troubled.pop(name, None)

    def is_ejected(self, name: str) -> bool:
        """Whether it rests, or is being probed."""
        trouble = self.troubled.get(name)
        return trouble is not None and trouble.until > 0

    def forget(self, known: Collection[str]) -> None:
        """Hold nothing against instances that are no more."""
        for name in self.troubled.keys() - set(known):
            del self.troubled[name]

    def _sound(self, ready: Sequence[Upstream], cap: int, tried: Collection[str]) -> Sequence[Upstream]:
        """Those to draw from: one whose rest is over is probed first; without any sound one, all that are left.

        The last is never out: a single instance that just came back must not wait for its rest to end.
        """
        left = [one for one in ready if one.name not in tried]
        for one in left:
            trouble = self.troubled.get(one.name)
            if trouble is None or trouble.probing or not 0 < trouble.until <= self.clock():
                continue
            if not cap or self.load(one) < cap:
                trouble.probing = True
                return (one,)
        return [one for one in left if not self.is_ejected(one.name)] or left

    def _may_rest(self, among: Sequence[Upstream]) -> bool:
        resting = sum(self.is_ejected(one.name) for one in among)
        return (resting + 1) * 2 <= len(among)
