"""Single decisions: what they say, what they refuse, and what a loss of memory costs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from endpoints.autoscale import History, Policy, Signal, desired, is_whole, listen
from endpoints.autoscale.hearing import SILENCE
from tests.endpoints.autoscale.world import START

POLICY = Policy(min=1, max=10, target=10, delay=timedelta(seconds=60))


def told(signal: Signal, seconds: int, *, policy: Policy = POLICY, history: History | None = None):  # type: ignore[no-untyped-def]
    """The same signal every two seconds for so long; the history, the last moment and what is decided at it."""
    at = history.seen_at if history else START
    history = history or History.begin(signal, at)
    for _ in range(seconds // 2):
        at += timedelta(seconds=2)
        history = history.seen(signal, policy, at)
    return history, at, desired(signal, policy, history, at)


def test_a_decision_says_what_it_was_made_of() -> None:
    _, _, decision = told(Signal(27, wanted=1, ready=1), 6)
    assert decision
    assert decision.wanted == 3
    assert decision.why == "wanted 3: 27 in flight / target 10; 1 ready"


def test_a_clock_that_is_set_back_begins_what_is_known_anew() -> None:
    history, _, _ = told(Signal(0, wanted=1, ready=1), 60)
    busy, earlier = Signal(27, wanted=1, ready=1), START - timedelta(hours=1)
    for second in range(0, 8, 2):
        history = history.seen(busy, POLICY, earlier + timedelta(seconds=second))
    decision = desired(busy, POLICY, history, earlier + timedelta(seconds=6))
    assert decision
    assert decision.wanted == 3
    assert is_whole(listen({"gone": START}, ["a"], earlier), ["a"]), "a silence that ends in an hour is none"


def test_a_bounded_step_says_where_it_goes() -> None:
    _, _, decision = told(Signal(40, queued=50, wanted=2, ready=1, starting=1), 6)
    assert decision
    assert decision.why == ("wanted 6 on the way to 9: 40 in flight + 50 queued / target 10; 1 ready, 1 starting")


def test_cpu_that_asks_is_named() -> None:
    _, _, decision = told(Signal(4, wanted=1, ready=1, cpu=91.4, memory=40.0), 60)
    assert decision
    assert decision.why == "wanted 2: CPU 91 % and memory 40 % / threshold 80 %, 4 in flight; 1 ready"


def test_cpu_asks_for_the_next_only_when_the_last_was_seen_to_serve() -> None:
    signal = Signal(9, wanted=1, ready=1, cpu=100.0)
    history, at, decision = told(signal, 60)
    assert decision
    history = history.applied(decision, at)
    _, _, soon = told(replace(signal, wanted=2, ready=2), 40, history=history)
    assert soon is None
    _, _, later = told(replace(signal, wanted=2, ready=2), 50, history=history)
    assert later
    assert later.wanted == 3


def test_cpu_asks_for_none_where_there_is_no_room_and_requests_do() -> None:
    hot = Signal(9, wanted=1, ready=1, cpu=100.0, room=0)
    assert told(hot, 60)[2] is None
    assert told(replace(hot, room=1), 60)[2]
    _, _, needed = told(replace(hot, in_flight=25), 60)
    assert needed
    assert needed.wanted == 3


def test_below_the_minimum_nothing_is_waited_for() -> None:
    decision = desired(
        signal := Signal(0, wanted=1, ready=1), replace(POLICY, min=3), History.begin(signal, START), START
    )
    assert decision
    assert decision.why == "wanted 3: the minimum is 3"


def test_with_a_minimum_of_zero_the_last_idle_one_goes_too() -> None:
    _, _, decision = told(Signal(0, wanted=1, ready=1, idle=1), 62, policy=replace(POLICY, min=0))
    assert decision
    assert decision.wanted == 0


def test_what_waits_at_zero_asks_for_the_first() -> None:
    _, _, decision = told(Signal(0, queued=3, wanted=0, ready=0), 6, policy=replace(POLICY, min=0))
    assert decision
    assert decision.wanted == 1


def test_a_lost_history_begins_the_delay_anew_and_takes_nothing() -> None:
    signal = Signal(0, wanted=4, ready=4, idle=4)
    _, _, decision = told(signal, 62)
    assert decision
    _, _, lost = told(signal, 58)
    assert lost is None


def test_a_gap_in_what_was_seen_begins_the_delay_anew() -> None:
    signal = Signal(0, wanted=4, ready=4, idle=4)
    history, at, _ = told(signal, 56)
    after = history.seen(signal, POLICY, at + timedelta(seconds=12))
    assert after.since == at + timedelta(seconds=12)


def test_a_longer_delay_that_was_set_meanwhile_holds_at_once() -> None:
    signal = Signal(0, wanted=4, ready=4, idle=4)
    history, at, decision = told(signal, 62)
    assert decision
    assert desired(signal, replace(POLICY, delay=timedelta(seconds=120)), history, at) is None


@pytest.mark.parametrize("minutes", [1, 59])
def test_a_wish_within_the_delay_is_remembered(minutes: int) -> None:
    slow = replace(POLICY, delay=timedelta(hours=1))
    history, _, _ = told(Signal(35, wanted=4, ready=4), 30, policy=slow)
    history, _, decision = told(Signal(0, wanted=4, ready=4, idle=4), minutes * 60, policy=slow, history=history)
    assert decision is None
    assert history.greatest_wish(START) == 4


@pytest.mark.parametrize(
    "changes",
    [{"min": 5, "max": 4}, {"min": -1}, {"target": 0}, {"delay": timedelta(seconds=20)}, {"min": 0, "max": 0}],
)
def test_a_policy_that_would_thrash_or_means_nothing_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        replace(POLICY, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [{}, [], "x", {"wanted": 1}, {"seen_at": "soon"}])
def test_what_is_no_history_is_told_from_one(data: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        History.from_json(data)


def test_a_gateway_is_missed_until_it_is_forgotten() -> None:
    known = listen({}, ["a", "b"], START)
    assert is_whole(known, ["a", "b"])
    later: datetime = START + timedelta(seconds=30)
    known = listen(known, ["a"], later)
    assert not is_whole(known, ["a"])
    known = listen(known, ["a", "c"], START + SILENCE)
    assert is_whole(known, ["a", "c"])
    known = listen(known, ["a", "c"], START + SILENCE, left=["c"])
    assert is_whole(known, ["a"]), "who said goodbye is not missed"
