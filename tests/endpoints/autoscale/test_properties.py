"""What holds for any traffic, any policy and any moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from endpoints.autoscale import Decision, History, Policy, Signal, desired
from tests.endpoints.autoscale.world import START, World, steadily

loads = st.lists(st.integers(0, 300), min_size=1, max_size=8)  # one for every two minutes


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    low = draw(st.integers(0, 10))
    return Policy(
        min=low,
        max=draw(st.integers(max(1, low), 100)),
        target=draw(st.integers(1, 50)),
        threshold=draw(st.integers(50, 95)),
        delay=timedelta(seconds=draw(st.integers(60, 300))),
        spare=draw(st.integers(0, 10)),
    )


@st.composite
def signals(draw: st.DrawFn) -> Signal:
    ready = draw(st.integers(0, 100))
    return Signal(
        in_flight=draw(st.none() | st.integers(0, 5000)),
        wanted=draw(st.integers(0, 100)),
        ready=ready,
        queued=draw(st.integers(0, 1000)),
        starting=draw(st.integers(0, 5)),
        draining=draw(st.integers(0, 5)),
        idle=draw(st.integers(0, ready)),
        cpu=draw(st.none() | st.floats(0, 400)),
        memory=draw(st.none() | st.floats(0, 100)),
        whole=draw(st.booleans()),
        deploying=draw(st.booleans()),
        room=draw(st.none() | st.integers(0, 3)),
    )


def _told(policy: Policy, told: list[Signal]) -> Iterator[tuple[Signal, History, Decision | None]]:
    """Every two seconds one signal, with what is decided at it; whoever decides writes it at once."""
    history: History | None = None
    wanted = told[0].wanted
    for nth, signal in enumerate(told):
        at = START + timedelta(seconds=2 * nth)
        now = replace(signal, wanted=wanted)
        if history is None:
            if now.in_flight is not None:
                history = History.begin(now, at)
            continue
        history = history.seen(now, policy, at)
        decision = desired(now, policy, history, at)
        yield now, history, decision
        if decision:
            wanted, history = decision.wanted, history.applied(decision, at)


@settings(max_examples=30, deadline=None)
@given(loads, policies(), st.integers(0, 120), st.integers(1, 1000))
def test_no_traffic_makes_it_thrash_kill_or_overshoot(
    levels: list[int], policy: Policy, start_seconds: int, seed: int
) -> None:
    policy = replace(policy, min=max(1, policy.min))
    callers = steadily(lambda now: levels[min(len(levels) - 1, now // 120)], seconds=20, seed=seed)
    world = World(policy, callers, start_seconds=start_seconds, seed=seed).run(120 * len(levels) + 400)
    assert world.killed == 0
    assert world.most <= max(policy.min, ceil(world.peak / policy.target) + policy.spare)
    assert all(policy.min <= one.after <= policy.max for one in world.changes)
    ups = [one for one in world.changes if one.after > one.before]
    for down in (one for one in world.changes if one.after < one.before):
        assert not any(0 <= down.at - up.at < policy.delay.total_seconds() for up in ups)


@settings(deadline=None)
@given(st.lists(signals(), min_size=2, max_size=60), policies())
def test_any_signals_lead_to_bounded_steps_within_the_limits(told: list[Signal], policy: Policy) -> None:
    for signal, _, decision in _told(policy, told):
        if decision is None:
            continue
        assert decision.wanted != signal.wanted
        assert policy.min <= decision.wanted <= policy.max
        assert decision.why.startswith(f"wanted {decision.wanted}")
        if signal.wanted >= policy.min:
            assert decision.wanted <= signal.wanted + max(policy.step, signal.wanted)
            assert decision.wanted >= signal.wanted - max(1, signal.wanted // 2)


@settings(deadline=None)
@given(st.lists(signals(), min_size=2, max_size=60), policies())
def test_nothing_is_decided_without_a_signal_and_nothing_taken_while_it_is_unsure(
    told: list[Signal], policy: Policy
) -> None:
    for signal, _, decision in _told(policy, told):
        if signal.in_flight is None:
            assert decision is None
        if decision and decision.wanted < signal.wanted:
            assert signal.whole
            assert not signal.deploying
            assert signal.starting == 0
            assert decision.wanted * policy.target >= min(signal.load, policy.max * policy.target)


@settings(deadline=None)
@given(st.lists(signals(), min_size=2, max_size=60), policies())
def test_a_history_outside_is_the_same_inside_and_stays_small(told: list[Signal], policy: Policy) -> None:
    for _, history, _ in _told(policy, told):
        assert History.from_json(json.loads(json.dumps(history.as_json()))) == history
        wishes = [instances for _, instances in history.wishes]
        assert all(one > other for one, other in pairwise(wishes))
        assert len(history.loads) <= 16


@given(signals(), policies(), st.integers(0, 3600))
def test_the_same_question_gets_the_same_answer(signal: Signal, policy: Policy, seconds: int) -> None:
    at = START + timedelta(seconds=seconds)
    history = History.begin(signal, START)
    assert desired(signal, policy, history, at) == desired(signal, policy, history, at)
