"""Waiting awake: a small engine's answers find the gateway awake, and a language model's cost it nothing."""

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.awake import AWAKE_NS, FEW, MISSES, Awake, Wait


class Loop:
    """An event loop's turns and a clock, by hand."""

    def __init__(self) -> None:
        self.now = 1
        self.turns: list[Callable[[], None]] = []
        self.awake = Awake(cast("asyncio.AbstractEventLoop", self), clock=lambda: self.now)

    def call_soon(self, turn: Callable[[], None]) -> None:
        self.turns.append(turn)

    def looks_again(self) -> bool:
        """Whether the loop goes round instead of sleeping."""
        turns, self.turns = self.turns, []
        for turn in turns:
            turn()
        return bool(turns)

    def waits(self, wait: Wait, nanoseconds: int) -> bool:
        """Whether a wait of that length found the loop awake at its end."""
        self.awake.expect(wait)
        self.now += nanoseconds
        awake = self.looks_again() and bool(self.turns)
        self.awake.met(wait)
        while self.looks_again():
            self.now += AWAKE_NS
        return awake


def test_who_answers_at_once_is_waited_for_awake() -> None:
    loop = Loop()
    assert not loop.waits(loop.awake.answer, 90_000), "nothing is known of it yet"
    assert loop.waits(loop.awake.answer, 30_000)
    assert loop.waits(loop.awake.answer, 30_000)


def test_after_some_long_answers_nobody_waits_awake() -> None:
    loop = Loop()
    loop.waits(loop.awake.answer, 30_000)
    for _ in range(MISSES):
        assert not loop.waits(loop.awake.answer, 30_000_000), "it goes to sleep in between"
    loop.awake.expect(loop.awake.answer)
    assert not loop.turns
    loop.awake.met(loop.awake.answer)  # at once after all
    loop.awake.expect(loop.awake.answer)
    assert loop.turns


def test_answers_and_requests_are_two_habits() -> None:
    """A caller that comes back at once says nothing of the engine, nor the other way round."""
    loop = Loop()
    loop.waits(loop.awake.request, 20_000)
    assert loop.waits(loop.awake.request, 20_000)
    assert not loop.waits(loop.awake.answer, 20_000)


def test_nobody_waits_awake_among_many_calls() -> None:
    loop = Loop()
    loop.waits(loop.awake.answer, 20_000)
    loop.awake.calls = FEW + 1
    assert not loop.waits(loop.awake.answer, 20_000)
    loop.awake.calls = FEW
    assert loop.waits(loop.awake.answer, 20_000)


def test_a_wait_that_never_ends_is_slept_through() -> None:
    loop = Loop()
    loop.waits(loop.awake.answer, 20_000)
    loop.awake.expect(loop.awake.answer)
    turns = 0
    while loop.looks_again():
        loop.now += AWAKE_NS // 10
        turns += 1
    assert turns <= 12
