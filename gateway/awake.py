"""Waiting awake for what comes at once: a core that sleeps takes longer to wake than a small model to answer.

While few calls are under way, the event loop looks again and again for up to `AWAKE_NS` instead of going to sleep:
for an engine's answer, and behind an answer for the caller's next request. Each only where the last waits of its
kind were so short; a language model's never are, so beside one no time is spent awake.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter_ns

AWAKE_NS = 200_000
FEW = 4  # calls; among more, something comes all the time
MISSES = 3  # waits in a row that took longer, until nobody waits awake


class Wait:
    """One kind of wait: when the last began (0 when none has), and how many in a row took too long."""

    def __init__(self) -> None:
        self.since = 0
        self.misses = MISSES


class Awake:
    """`calls` is how many are under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, clock: Callable[[], int] = perf_counter_ns) -> None:
        self.loop = loop
        self.clock = clock
        self.calls = 0
        self.answer = Wait()
        self.request = Wait()
        self._until = 0
        self._turning = False
        self._turn: Callable[[], None] = self._look_again

    def expect(self, wait: Wait) -> None:
        """It begins now."""
        if self.calls > FEW:
            wait.since = 0
            return
        wait.since = now = self.clock()
        if wait.misses < MISSES:
            self._until = now + AWAKE_NS
            if not self._turning:
                self._turning = True
                self.loop.call_soon(self._turn)

    def met(self, wait: Wait) -> None:
        """What was waited for is there."""
        if wait.since:
            short = self.clock() - wait.since <= AWAKE_NS
            wait.since, wait.misses = 0, 0 if short else min(MISSES, wait.misses + 1)

    def _look_again(self) -> None:
        if self.clock() < self._until:
            self.loop.call_soon(self._turn)
        else:
            self._turning = False
