"""Hours of traffic in a simulated world: what its owner and its callers would notice."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from endpoints.autoscale import Policy
from tests.endpoints.autoscale.world import World, at_once, both, steadily

DELAY = 60
POLICY = Policy(min=1, max=20, target=10, delay=timedelta(seconds=DELAY))
HOUR = 3600


def _pulse(low: float, high: float, *, begins: int, ends: int):  # type: ignore[no-untyped-def]
    return steadily(lambda now: high if begins <= now < ends else low)


# ── bursts and ramps ─────────────────────────────────────────────────────────────────────────────
def test_a_burst_is_served_within_seconds_and_costs_no_more_than_it_needs() -> None:
    world = World(POLICY, _pulse(2, 60, begins=100, ends=400)).run(112)
    assert world.wanted >= math.ceil(60 / 10)
    world.run(28)
    assert not world.waiting
    world.run(HOUR)
    assert world.most <= math.ceil(world.peak / POLICY.target)  # the peak is what had to wait meanwhile
    assert (world.wanted, world.turns, world.killed) == (1, 1, 0)


def test_after_a_burst_nothing_goes_before_the_delay_is_over() -> None:
    world = World(POLICY, _pulse(2, 85, begins=0, ends=200), wanted=9).run(HOUR)
    first_down = next(one for one in world.changes if one.after < one.before)
    assert first_down.at >= 200 + DELAY
    assert f"sufficed for {DELAY} s" in first_down.why


def test_a_burst_of_a_moment_starts_nothing() -> None:
    world = World(POLICY, at_once(at=100, requests=15, seconds=1)).run(600)
    assert world.changes == []


def test_a_ramp_is_followed_up_and_down_without_a_turn_between() -> None:
    def ramp(now: int) -> float:
        return 100 * (1 - abs(now - 1800) / 1800)

    world = World(POLICY, steadily(ramp)).run(3800)
    assert world.most <= math.ceil(world.peak / POLICY.target)
    assert (world.wanted, world.turns, world.killed) == (1, 1, 0)
    assert world.longest_queue <= POLICY.target  # one instance's worth at the most ever waited


def test_what_waits_for_slow_starts_does_not_ask_twice() -> None:
    """Instances that start count: however long they take, no more are wanted than requests ask for."""
    world = World(POLICY, at_once(at=50, requests=40, seconds=900), start_seconds=300).run(900)
    assert world.most == 4
    assert world.turns == 0


def test_a_queue_that_spreads_over_new_instances_scales_nothing_down_and_up_again() -> None:
    world = World(POLICY, _pulse(0, 80, begins=60, ends=3000), start_seconds=60).run(3000)
    assert world.turns == 1  # up with the queue, down to what the load needs, and never up again
    assert world.wanted in (8, 9, 10)
    assert world.most <= math.ceil(world.peak / POLICY.target)


# ── flapping ─────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("period", [4, 20, 60, 110])
def test_a_signal_that_flaps_faster_than_the_delay_moves_nothing(period: int) -> None:
    world = World(POLICY, steadily(lambda now: 5 if now // (period // 2) % 2 else 45), wanted=5).run(HOUR)
    assert world.turns <= 1
    assert [one for one in world.changes if one.at > 600] == []


def test_noise_at_a_border_moves_nothing_after_the_first_minutes() -> None:
    world = World(POLICY, steadily(lambda now: 20 + (now * 7919 % 5) - 2)).run(HOUR)
    assert [one for one in world.changes if one.at > 600] == []
    assert world.wanted in (2, 3)


def test_a_signal_slower_than_the_delay_costs_two_moves_a_period_and_no_request() -> None:
    world = World(POLICY, steadily(lambda now: 5 if now // 300 % 2 else 25)).run(HOUR)
    assert world.turns <= 2 * HOUR // 600
    assert world.killed == 0


# ── work that takes long ─────────────────────────────────────────────────────────────────────────
def test_no_long_stream_is_killed_when_the_rest_of_the_load_is_gone() -> None:
    streams = both(*(at_once(at=110 + n, requests=1, seconds=900) for n in range(6)))
    world = World(POLICY, both(_pulse(0, 60, begins=100, ends=300), streams)).run(2 * HOUR)
    assert (world.killed, world.wanted) == (0, 1)
    assert world.load == 0


def test_busy_instances_go_one_at_a_time_each_after_its_work() -> None:
    world = World(POLICY, steadily(lambda now: 12, seconds=40), wanted=8)
    for _ in range(HOUR):
        world.run(1)
        drained = [one for one in world.servers if one.draining_at is not None]
        assert sum(bool(one.requests) for one in drained) <= 1
    assert (world.wanted, world.killed) == (2, 0)


def test_instances_that_carry_nothing_go_together() -> None:
    world = World(POLICY, steadily(lambda now: 0), wanted=8).run(DELAY + 10)
    assert world.wanted == 4
    world.run(120)
    assert world.wanted == 1


# ── warm spares ──────────────────────────────────────────────────────────────────────────────────
def test_a_burst_that_the_spares_can_take_waits_for_nobody() -> None:
    burst = _pulse(8, 26, begins=100, ends=400)
    cold, warm = (World(replace(POLICY, spare=n), burst, start_seconds=60).run(500) for n in (0, 2))
    assert cold.longest_queue > 5
    assert warm.longest_queue == 0


def test_spares_flap_no_more_than_the_load_and_are_kept_when_it_is_gone() -> None:
    world = World(replace(POLICY, spare=2), _pulse(0, 45, begins=100, ends=600)).run(HOUR)
    assert world.most <= math.ceil(world.peak / POLICY.target) + 2
    assert (world.wanted, world.turns, world.killed) == (2, 1, 0)
    full = World(replace(POLICY, spare=5), steadily(lambda now: 190)).run(600)
    assert full.wanted == POLICY.max


# ── sleep ────────────────────────────────────────────────────────────────────────────────────────
SLEEPY = replace(POLICY, min=0)


def test_without_requests_it_sleeps_after_the_delay_and_costs_nothing() -> None:
    world = World(SLEEPY, _pulse(12, 0, begins=300, ends=3 * HOUR), wanted=2).run(HOUR)
    (*_, last) = world.changes
    assert (world.wanted, world.servers, world.killed) == (0, [], 0)
    assert last.at >= 300 + DELAY
    assert last.why == "wanted 0: no request for 60 s; the next one wakes it"
    slept = world.instance_seconds
    world.run(HOUR)
    assert world.instance_seconds == slept


def test_a_burst_at_zero_wakes_it_once_and_the_load_brings_the_others() -> None:
    world = World(SLEEPY, at_once(at=100, requests=50, seconds=20), start_seconds=30).run(300)
    assert world.wakes == [100]
    assert world.most <= math.ceil(50 / SLEEPY.target)
    assert (world.done, world.killed) == (50, 0)
    world.run(600)
    assert (world.wanted, world.turns) == (0, 1)


def test_the_time_in_which_it_starts_is_no_idle_time() -> None:
    """One caller wakes it and hangs up; a start that takes longer than the delay still serves for the delay."""
    world = World(SLEEPY, at_once(at=100, requests=1, seconds=1), start_seconds=5 * DELAY).run(110)
    world.waiting.clear()
    world.run(5 * DELAY + DELAY - 15)
    assert (world.wanted, len(world.ready)) == (1, 1)
    world.run(30)
    assert world.wanted == 0


def test_the_time_of_a_deployment_is_no_idle_time() -> None:
    world = World(SLEEPY, steadily(lambda now: 0), wanted=1, deploying=lambda now: now < 1000)
    world.run(1000 + DELAY - 5)
    assert world.wanted == 1
    world.run(15)
    assert world.wanted == 0


def test_a_long_stream_keeps_it_awake_to_its_end() -> None:
    world = World(SLEEPY, at_once(at=10, requests=1, seconds=1800)).run(1800)
    assert (world.wakes, world.wanted, world.changes) == ([10], 1, [])
    world.run(10 + DELAY + 20)
    assert (world.wanted, world.killed, world.done) == (0, 0, 1)


def test_every_request_begins_the_delay_anew() -> None:
    def caller(now: int) -> list[float]:
        return [1.0] if now % (DELAY - 10) == 0 and now < HOUR else []

    world = World(SLEEPY, caller).run(HOUR)
    assert (world.wakes, world.changes) == ([0], [])
    world.run(2 * DELAY)
    assert world.wanted == 0


def test_callers_at_any_pace_cost_one_wake_a_sleep_and_none_is_lost() -> None:
    callers = both(*(at_once(at=gap * gap, requests=2, seconds=2) for gap in range(1, 60)))
    world = World(SLEEPY, callers, start_seconds=20).run(2 * HOUR)
    assert (world.done, world.killed, world.wanted) == (2 * 59, 0, 0)
    assert world.turns == 0  # down to zero only; what goes up is woken
    sleeps = [one.at for one in world.changes if one.after == 0]
    assert len(world.wakes) == len(sleeps)
    assert all(slept >= woken + DELAY for woken, slept in zip(world.wakes, sleeps, strict=True))


def test_it_does_not_sleep_while_a_gateway_may_have_a_caller_that_is_not_heard() -> None:
    world = World(
        SLEEPY, steadily(lambda now: 0), wanted=1, silent=lambda gateway, now: gateway == 1 and 20 <= now < 200
    ).run(200 + DELAY - 5)
    assert world.wanted == 1
    world.run(20)
    assert world.wanted == 0


# ── what is not known ────────────────────────────────────────────────────────────────────────────
def test_a_silence_of_all_gateways_decides_nothing() -> None:
    world = World(POLICY, steadily(lambda now: 35), silent=lambda _, now: now > 600).run(600)
    assert world.wanted == 4
    known = len(world.changes)
    world.run(HOUR)
    assert len(world.changes) == known


def test_a_gateway_that_goes_silent_takes_no_instance_with_it() -> None:
    def silent(gateway: int, now: int) -> bool:
        return gateway == 1 and 600 <= now < 840

    world = World(POLICY, steadily(lambda now: 38), wanted=4, silent=silent).run(HOUR)
    assert world.turns == 0
    assert world.wanted == 4
    assert world.killed == 0


def test_what_the_other_gateways_count_still_asks_for_more() -> None:
    world = World(
        POLICY, _pulse(15, 90, begins=700, ends=1000), silent=lambda gateway, now: gateway == 1 and now >= 600
    ).run(800)
    assert world.wanted >= 4
    assert world.most <= math.ceil(world.peak / POLICY.target)


def test_a_gateway_that_was_shut_down_is_forgotten() -> None:
    world = World(
        POLICY,
        steadily(lambda now: 45 if now < 600 else 0),
        silent=lambda gateway, now: gateway == 1 and now >= 600,
    ).run(600)
    assert world.wanted >= 4
    world.run(300 + DELAY - 20)
    assert world.wanted >= 4
    world.run(300)
    assert world.wanted == 1


def test_nothing_goes_while_a_deployment_is_under_way() -> None:
    world = World(POLICY, steadily(lambda now: 0), wanted=5, deploying=lambda now: now < 1000).run(1000)
    assert world.changes == []
    world.run(300)
    assert world.wanted == 1


# ── CPU and memory ───────────────────────────────────────────────────────────────────────────────
def test_memory_that_is_always_full_never_runs_away() -> None:
    """An engine's memory is as full with one request as with ten, and no instance more relieves it."""
    world = World(POLICY, steadily(lambda now: 3), use=lambda _: (20.0, 95.0)).run(HOUR)
    assert world.most <= world.peak
    assert world.turns == 0
    idle = World(POLICY, steadily(lambda now: 0), use=lambda _: (0.0, 95.0)).run(HOUR)
    assert idle.changes == []


def test_a_cpu_that_one_request_fills_asks_for_one_instance_a_request_at_most() -> None:
    def use(server):  # type: ignore[no-untyped-def]
        return (100.0 if server.requests else 1.0), 10.0

    world = World(POLICY, at_once(at=100, requests=3, seconds=1200), use=use, start_seconds=30).run(1100)
    assert world.most <= 3
    assert all(one.after == one.before + 1 for one in world.changes)
    assert world.turns == 0


def test_cpu_that_more_instances_relieve_is_not_given_back_at_once() -> None:
    """Nine in flight need one instance by concurrency; two are kept while one would be too hot."""
    world: World

    def use(_):  # type: ignore[no-untyped-def]
        return min(100.0, 120.0 / max(1, len(world.ready))), 10.0

    world = World(POLICY, steadily(lambda now: 9), use=use)
    world.run(HOUR)
    assert world.wanted == 2
    assert world.turns == 0


# ── people ───────────────────────────────────────────────────────────────────────────────────────
def test_what_a_person_set_is_kept_for_the_delay() -> None:
    world = World(POLICY, steadily(lambda now: 5)).run(300)
    world.wanted = 6
    world.run(DELAY - 4)
    assert world.wanted == 6
    world.run(300)
    assert world.wanted == 1


def test_fewer_than_the_load_needs_by_hand_are_raised_by_the_next_decision() -> None:
    world = World(POLICY, steadily(lambda now: 55)).run(300)
    world.wanted = 2
    world.run(30)
    assert world.wanted >= 6
    assert "in flight" in world.changes[-1].why
