"""Who is answered now, who waits and for how long: none lost, none out of turn, none held without hope."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.balance import FAILURES, REST_SECONDS, Balancer
from gateway.errors import Refusal
from gateway.queue import WAKE_AGAIN_SECONDS, Dispatch
from gateway.routes import Admission, Route, RouteTable, Upstream


def instances(count: int, *, ready: bool = True) -> tuple[Upstream, ...]:
    return tuple(Upstream(f"i{n}", "127.0.0.1", 1000 + n, ready) for n in range(count))


class Caller:
    """One request: what became of it, at once or later."""

    def __init__(self, house: House, name: str = "") -> None:
        self.house, self.name = house, name
        self.instance: Upstream | None = None
        self.refusal: Refusal | None = None
        self.answers = 0
        self.then: Callable[[], None] = lambda: None

    def ask(self, tried: tuple[str, ...] = ()) -> Caller:
        answer = self.house.dispatch.ask(self.house.held, self, tried)
        if isinstance(answer, Refusal):
            self.turned_away(answer)
        elif answer is not None:
            self.placed(answer)
        return self

    def placed(self, instance: Upstream) -> None:
        self.answers += 1
        self.instance = instance
        self.house.order.append(self)
        self.then()

    def turned_away(self, refusal: Refusal) -> None:
        self.answers += 1
        self.refusal = refusal
        self.then()

    def end(self, *, sound: bool | None = True) -> None:
        assert self.instance is not None
        self.house.dispatch.done(self.house.held, self.instance, sound=sound)

    @property
    def code(self) -> str:
        assert self.refusal is not None
        return self.refusal.code

    @property
    def waits(self) -> bool:
        return self.answers == 0


class House:
    """One endpoint, its callers, and a clock that stands still until told."""

    def __init__(self, *, ready: int = 1, cap: int = 1, **admission: Any) -> None:
        self.now = 0.0
        self.woken: list[str] = []
        self.order: list[Caller] = []  # those that were placed
        self.dispatch = Dispatch(
            Balancer(lambda: self.now, draw=random.Random(3)),
            lambda: self.now,
            lambda route: self.woken.append(route.name),
        )
        self.held = Route(
            7, "tiny", "local", 1, 1,
            instances=instances(ready), capacity_per_instance=cap, awaited=True, admission=Admission(**admission),
        )  # fmt: skip
        self.dispatch.table_changed(RouteTable([self.held]))

    def ask(self, times: int = 1) -> list[Caller]:
        return [Caller(self, str(n)).ask() for n in range(times)]

    def change(self, **fields: Any) -> None:
        self.held = replace(self.held, **fields)
        self.dispatch.table_changed(RouteTable([self.held]))

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.dispatch.look()

    @property
    def in_flight(self) -> int:
        return sum(self.dispatch.balancer.in_flight.values())


def asleep(**admission: Any) -> House:
    house = House(ready=0, **admission)
    house.change(state="idle", asleep=True)
    return house


def waiting(callers: list[Caller]) -> int:
    return sum(one.waits for one in callers)


class TestTurns:
    def test_with_room_it_is_placed_at_once_and_nobody_waits(self) -> None:
        house = House(ready=2, cap=3)
        assert all(one.instance for one in house.ask(6))
        assert house.dispatch.queued == {}

    def test_without_a_cap_nobody_waits(self) -> None:
        assert waiting(House(cap=0).ask(500)) == 0

    def test_those_beyond_the_cap_come_in_in_order_as_others_end(self) -> None:
        house = House(ready=2, cap=2)
        callers = house.ask(30)
        assert waiting(callers) == 26
        assert house.dispatch.queued == {7: 26}
        for n in range(30):
            house.order[n].end()
            assert house.in_flight <= 4
        assert house.order == callers
        assert all(one.answers == 1 for one in callers)
        assert (house.in_flight, house.dispatch.queued) == (0, {})

    def test_nobody_overtakes_those_who_wait(self) -> None:
        house = House(cap=1)
        _first, second = house.ask(2)
        house.dispatch.balancer.release("i0")  # room that nobody was told of yet
        (late,) = house.ask()
        assert late.waits
        house.dispatch.look()
        assert (second.instance is not None, late.waits) == (True, True)

    def test_one_that_tried_an_instance_in_vain_is_next(self) -> None:
        house = House(ready=2, cap=1)
        first, second, third = house.ask(3)
        assert first.instance is not None
        house.dispatch.refused(house.held, first.instance)
        again = first.ask(tried=(first.instance.name,))
        second.end()
        assert house.order[-1] is again
        assert third.waits

    def test_one_that_was_refused_everywhere_is_told_so_at_once(self) -> None:
        house = House(ready=2)
        caller = Caller(house).ask(tried=("i0", "i1"))
        assert (caller.code, caller.refusal and caller.refusal.status) == ("no_instance_reachable", 503)

    def test_one_that_waits_for_an_instance_it_has_not_tried_is_told_when_there_is_none_left(self) -> None:
        house = House(ready=2, cap=1)
        house.ask(2)
        caller = Caller(house).ask(tried=("i0",))
        behind = Caller(house).ask()
        house.change(instances=instances(1))
        assert caller.code == "no_instance_reachable"
        assert behind.waits

    def test_one_that_can_not_use_what_is_free_lets_the_next_in(self) -> None:
        house = House(ready=2, cap=1)
        house.ask(2)
        picky, behind = Caller(house).ask(tried=("i0",)), Caller(house).ask()
        next(one for one in house.order if one.instance == instances(1)[0]).end()
        assert picky.waits
        assert behind.instance is not None

    def test_whoever_leaves_gives_its_place_to_the_next(self) -> None:
        house = House(cap=1)
        first, second, third = house.ask(3)
        house.dispatch.leave(second)
        first.end()
        assert (second.answers, third.answers) == (0, 1)
        house.dispatch.leave(third)  # it waits no more
        house.dispatch.leave(second)
        third.end()
        assert (house.in_flight, house.dispatch.queued) == (0, {})

    def test_a_caller_that_ends_the_moment_it_is_placed_makes_room_without_end(self) -> None:
        house = House(cap=1, queue_limit=5000)
        (first, *others) = house.ask(5000)
        for one in others:
            one.then = one.end
        first.end()
        assert waiting(others) == 0
        assert house.order == [first, *others]
        assert (house.in_flight, house.dispatch.queued) == (0, {})

    def test_a_caller_may_leave_and_ask_again_while_it_is_told(self) -> None:
        house = House(cap=1, queue_seconds=5)
        (first, second, third) = house.ask(3)
        second.then = lambda: house.dispatch.leave(third)
        house.after(5)
        assert (second.code, third.answers) == ("queue_timeout", 0)
        first.end()
        assert house.in_flight == 0

    def test_endpoints_do_not_wait_for_one_another(self) -> None:
        house = House(cap=1)
        other = replace(house.held, endpoint_id=8, name="other", instances=(Upstream("o0", "127.0.0.1", 2000),))
        house.dispatch.table_changed(RouteTable([house.held, other]))
        house.ask(3)
        assert isinstance(house.dispatch.ask(other, Caller(house)), Upstream)
        assert house.dispatch.queued == {7: 2}


class TestBounds:
    def test_beyond_the_limit_it_is_429_with_when_to_try_again(self) -> None:
        house = House(cap=1, queue_limit=3)
        callers = house.ask(6)
        assert [one.code for one in callers[4:]] == ["queue_full"] * 2
        refusal = callers[5].refusal
        assert refusal is not None
        assert (refusal.status, dict(refusal.headers)) == (429, {b"retry-after": b"2"})
        callers[0].end()
        assert Caller(house).ask().waits

    @pytest.mark.parametrize("none", ["queue_limit", "queue_seconds"])
    def test_no_place_or_no_time_refuses_what_has_no_room(self, none: str) -> None:
        house = House(cap=1, **{none: 0})
        first, second = house.ask(2)
        assert (first.answers, second.code) == (1, "queue_full")

    def test_past_its_time_it_is_503_with_when_to_try_again(self) -> None:
        house = House(cap=1, queue_seconds=30)
        (_, early) = house.ask(2)
        house.after(20)
        (late,) = house.ask()
        house.after(9.9)
        assert early.waits
        house.after(0.1)
        assert (early.code, late.waits) == ("queue_timeout", True)
        refusal = early.refusal
        assert refusal is not None
        assert refusal.status == 503
        assert dict(refusal.headers)[b"retry-after"]
        house.after(20)
        assert late.code == "queue_timeout"
        assert house.dispatch.queued == {}

    def test_limits_that_change_hold_for_those_who_wait_already(self) -> None:
        house = House(cap=1)
        callers = house.ask(5)
        house.change(capacity_per_instance=3)
        assert waiting(callers) == 2
        house.change(admission=Admission(queue_seconds=1))
        house.after(1)
        assert waiting(callers) == 0


class TestSleep:
    def test_fifty_at_zero_wake_it_once_and_all_are_answered_in_order_at_its_pace(self) -> None:
        house = asleep(wake_seconds=300)
        house.change(capacity_per_instance=4)
        callers = house.ask(50)
        assert waiting(callers) == 50
        house.change(state="scaling", asleep=False)
        house.after(3)
        house.change(instances=instances(1))
        assert len(house.order) == 4
        for n in range(50):
            house.order[n].end()
            assert house.in_flight <= 4
        assert house.order == callers
        assert all(one.answers == 1 for one in callers)
        assert house.woken == ["tiny"]

    def test_a_second_instance_takes_its_share_when_it_is_ready(self) -> None:
        house = asleep()
        house.change(capacity_per_instance=2)
        callers = house.ask(10)
        house.change(instances=instances(1), asleep=False)
        house.change(instances=instances(2))
        assert waiting(callers) == 6

    def test_a_wake_without_result_is_tried_again_after_a_while_not_for_each_call(self) -> None:
        house = asleep()
        house.ask(3)
        for _ in range(4):
            house.after(WAKE_AGAIN_SECONDS / 5)
            house.ask()
        assert len(house.woken) == 1
        house.after(WAKE_AGAIN_SECONDS / 5)
        house.ask(5)
        assert len(house.woken) == 2

    def test_a_wake_outlives_the_callers_who_asked_for_it(self) -> None:
        house = asleep()
        for one in house.ask(3):
            house.dispatch.leave(one)
        house.ask(3)
        assert len(house.woken) == 1

    def test_the_next_sleep_is_woken_at_once(self) -> None:
        house = asleep()
        (first,) = house.ask()
        house.change(instances=instances(1), asleep=False, state="active")
        first.end()
        house.change(instances=(), asleep=True, state="idle")
        house.ask()
        assert len(house.woken) == 2

    def test_one_that_falls_asleep_under_those_who_wait_is_woken(self) -> None:
        house = House(cap=1)
        _first, second = house.ask(2)
        house.change(instances=(), asleep=True)
        house.dispatch.look()
        assert (second.waits, house.woken) == (True, ["tiny"])

    def test_what_does_not_wake_in_time_is_503(self) -> None:
        house = asleep(wake_seconds=60, queue_seconds=5)
        (early,) = house.ask()
        house.change(state="scaling", asleep=False)
        house.after(59)
        assert early.waits
        house.after(1)
        refusal = early.refusal
        assert refusal is not None
        assert (refusal.status, refusal.code) == (503, "cold_start_timeout")
        assert dict(refusal.headers)[b"retry-after"]

    def test_no_more_are_held_than_may_wait_and_even_those_refused_wake_it(self) -> None:
        house = asleep(queue_limit=10)
        callers = house.ask(12)
        assert (waiting(callers), [one.code for one in callers[10:]]) == (10, ["queue_full"] * 2)
        sleeper = asleep(queue_limit=0)
        assert sleeper.ask()[0].code == "queue_full"
        assert sleeper.woken == ["tiny"]

    def test_without_time_in_the_queue_it_is_held_for_the_wake_all_the_same(self) -> None:
        house = asleep(queue_seconds=0)
        first, second = house.ask(2)
        house.change(instances=instances(1), asleep=False, capacity_per_instance=1)
        assert (first.answers, second.waits) == (1, True)
        house.dispatch.look()
        assert second.code == "queue_timeout"

    def test_once_it_is_awake_the_time_in_the_queue_counts(self) -> None:
        house = asleep(wake_seconds=60, queue_seconds=5)
        first, second = house.ask(2)
        house.after(50)
        house.change(instances=instances(1), asleep=False)
        assert first.instance is not None
        house.after(4.9)
        assert second.waits
        house.after(0.1)
        assert second.code == "queue_timeout"

    def test_an_endpoint_that_comes_and_goes_holds_nobody_for_ever(self) -> None:
        house = asleep(wake_seconds=60, queue_seconds=30)
        (_, caller) = house.ask(2)
        for n in range(10):
            house.change(instances=instances(1) if n % 2 == 0 else (), capacity_per_instance=1, asleep=False)
            house.after(10)
        assert caller.answers == 1


class TestHope:
    """Who is held and who is refused at once."""

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ({"desired": "stopped"}, "endpoint_stopped"),
            ({"desired": "deleted"}, "endpoint_not_found"),
            ({"state": "failed", "awaited": False}, "endpoint_failed"),
            ({"state": "deploying", "awaited": False}, "endpoint_not_ready"),
        ],
    )
    def test_what_can_not_become_ready_refuses_at_once_and_sends_those_who_wait_away(
        self, fields: dict[str, Any], code: str
    ) -> None:
        house = asleep()
        held = house.ask(3)
        house.change(**fields)
        assert [one.code for one in held] == [code] * 3
        assert Caller(house).ask().code == code
        assert house.dispatch.queued == {}

    def test_a_deleted_endpoint_sends_those_who_wait_away(self) -> None:
        house = asleep()
        held = house.ask(3)
        house.dispatch.table_changed(RouteTable([]))
        assert {one.code for one in held} == {"endpoint_not_found"}
        assert Caller(house).ask().code == "endpoint_not_found"

    def test_another_endpoint_of_the_same_name_is_not_it(self) -> None:
        house = asleep()
        held = house.ask(3)
        house.dispatch.table_changed(RouteTable([replace(house.held, endpoint_id=9, instances=instances(1))]))
        assert {one.code for one in held} == {"endpoint_not_found"}

    def test_those_who_are_being_answered_when_it_stops_are_not_disturbed(self) -> None:
        house = House(cap=1)
        first, second = house.ask(2)
        house.change(desired="stopped")
        assert (first.answers, second.code) == (1, "endpoint_stopped")
        first.end()
        assert house.in_flight == 0

    @pytest.mark.parametrize("state", ["scaling", "degraded", "deploying", "updating"])
    def test_while_one_is_on_its_way_callers_are_held_and_nothing_is_woken(self, state: str) -> None:
        house = House(ready=0)
        house.change(state=state)
        (caller,) = house.ask()
        house.after(1)
        assert caller.waits
        house.change(instances=instances(1), state="active")
        assert caller.instance is not None
        assert house.woken == []

    def test_a_request_that_looked_long_ago_is_placed_by_what_is_so_now(self) -> None:
        house = House(ready=0)
        old = house.held
        house.change(instances=instances(1))
        assert house.dispatch.ask(old, Caller(house)) == instances(1)[0]
        house.change(desired="stopped", instances=())
        answer = house.dispatch.ask(old, Caller(house))
        assert isinstance(answer, Refusal)
        assert answer.code == "endpoint_stopped"


class TestTrouble:
    def test_one_that_keeps_failing_rests_and_the_other_takes_its_share(self) -> None:
        house = House(ready=2, cap=0)
        bad = instances(1)[0]
        for _ in range(200):
            (caller,) = house.ask()
            caller.end(sound=caller.instance != bad)
        assert sum(one.instance == bad for one in house.order) == FAILURES

    def test_the_queue_moves_again_when_a_rest_is_over(self) -> None:
        house = House(ready=2, cap=1)
        first, _second, third = house.ask(3)
        assert first.instance is not None
        house.dispatch.refused(house.held, first.instance)
        assert third.waits
        house.after(REST_SECONDS)
        assert third.instance == first.instance
        third.end()
        assert not house.dispatch.balancer.is_ejected(first.instance.name)

    def test_a_replaced_instance_is_forgotten(self) -> None:
        house = House(ready=2)
        house.dispatch.balancer.eject("i0")
        house.change(instances=(Upstream("new", "127.0.0.1", 3000),))
        assert house.dispatch.balancer.troubled == {}


def test_whatever_happens_every_caller_is_answered_once_and_nothing_is_left_over() -> None:
    """Callers come, leave, end and fail while instances come and go, in a thousand orders."""
    chance = random.Random(5)
    house = House(ready=1, cap=2, queue_limit=20, queue_seconds=8, wake_seconds=20)
    callers: list[Caller] = []
    left: set[Caller] = set()
    for _ in range(2500):
        roll = chance.random()
        if roll < 0.4:
            callers += house.ask()
        elif roll < 0.7 and house.order:
            one = house.order.pop(chance.randrange(len(house.order)))
            one.end(sound=chance.choice([True, True, True, False, None]))
        elif roll < 0.8 and callers:
            one = chance.choice(callers)
            if one.waits:
                house.dispatch.leave(one)
                left.add(one)
        elif roll < 0.9:
            count = chance.choice([0, 1, 2, 3])
            house.change(instances=instances(count), asleep=count == 0 and chance.random() < 0.5)
        else:
            house.after(chance.random() * 3)
        assert sum(house.dispatch.queued.values()) == waiting([one for one in callers if one not in left])
        assert house.in_flight == len(house.order)
    house.after(100)
    for one in house.order:
        one.end()
    assert (house.in_flight, house.dispatch.queued) == (0, {})
    assert {one.answers for one in callers if one not in left} == {1}
    assert {one.answers for one in left} == {0}
