"""Which instance answers: the less busy of two drawn by chance, among those that answer connections.

In-flight counts are this process's own. Two choices keep several gateways from all running to the one
that each believes idle, and cost two look-ups.
"""

import random
from collections.abc import Callable, Collection, Sequence

from gateway.routes import Upstream

EJECT_SECONDS = 2.0


class Balancer:
    """Counts requests in flight by instance and leaves out, for a moment, those that refused a connection."""

    def __init__(self, clock: Callable[[], float], *, draw: random.Random | None = None) -> None:
        self.clock = clock
        self.draw = draw or random.Random()  # noqa: S311 (a spread, not a secret)
        self.in_flight: dict[str, int] = {}
        self.ejected: dict[str, float] = {}

    def take(self, ready: Sequence[Upstream], *, tried: Collection[str] = ()) -> Upstream | None:
        """An instance, counted as busy with one more; None when every one of them was tried.

        Whoever takes must release. Ejected instances are only drawn when nothing else is left: a
        single instance that just came back must not wait for its ejection to run out.
        """
        left = [one for one in ready if one.name not in tried]
        sound = [one for one in left if not self.is_ejected(one.name)] or left
        if not sound:
            return None
        chosen = sound[0] if len(sound) == 1 else min(self.draw.sample(sound, 2), key=self.load)
        self.in_flight[chosen.name] = self.load(chosen) + 1
        return chosen

    def release(self, name: str) -> None:
        left = self.in_flight[name] - 1
        if left:
            self.in_flight[name] = left
        else:
            del self.in_flight[name]

    def load(self, one: Upstream) -> int:
        return self.in_flight.get(one.name, 0)

    def eject(self, name: str, seconds: float = EJECT_SECONDS) -> None:
        self.ejected[name] = self.clock() + seconds

    def restore(self, name: str) -> None:
        """It answered a connection: whatever was held against it is over."""
        self.ejected.pop(name, None)

    def is_ejected(self, name: str) -> bool:
        until = self.ejected.get(name)
        if until is None:
            return False
        if until <= self.clock():
            del self.ejected[name]
            return False
        return True
