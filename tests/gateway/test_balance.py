"""Who answers: the less busy of two with room, and never one in trouble while another can."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from gateway.balance import FAILURES, LONGEST_REST_SECONDS, REST_SECONDS, Balancer
from gateway.routes import Upstream

FOUR = [Upstream(f"i{n}", "127.0.0.1", 1000 + n) for n in range(4)]


def balancer(now: list[float] | None = None) -> Balancer:
    clock = now or [0.0]
    return Balancer(lambda: clock[0], draw=random.Random(7))


def fail(one: Balancer, name: str, *, among: Sequence[Upstream] = FOUR, times: int = FAILURES) -> None:
    for _ in range(times):
        one.judge(name, False, among)


def drawn(one: Balancer, ready: Sequence[Upstream] = FOUR, times: int = 50) -> Counter[str]:
    """How often each is chosen when every request ends at once."""
    seen: Counter[str] = Counter()
    for _ in range(times):
        upstream = one.take(ready)
        assert upstream is not None
        one.release(upstream.name)
        seen[upstream.name] += 1
    return seen


def test_of_two_the_less_busy_one_answers() -> None:
    two = balancer()
    first, second = two.take(FOUR[:2]), two.take(FOUR[:2])
    assert first is not None
    assert second is not None
    assert first.name != second.name


def test_load_stays_even() -> None:
    even = balancer()
    for _ in range(400):
        even.take(FOUR)
    assert sum(even.in_flight.values()) == 400
    assert max(even.in_flight.values()) - min(even.in_flight.values()) <= 4


def test_idle_instances_share_what_comes() -> None:
    assert drawn(balancer(), times=400).keys() == {one.name for one in FOUR}
    assert max(drawn(balancer(), FOUR[:2], times=400).values()) < 300


def test_what_was_taken_and_released_leaves_nothing() -> None:
    one = balancer()
    taken = [one.take(FOUR) for _ in range(9)]
    for upstream in taken:
        assert upstream is not None
        one.release(upstream.name)
    assert one.in_flight == {}


def test_nothing_ready_gives_nothing() -> None:
    assert balancer().take([]) is None


@pytest.mark.parametrize("instances", [1, 2, 4])
def test_none_carries_more_than_its_cap_and_every_place_is_found(instances: int) -> None:
    one = balancer()
    while one.take(FOUR[:instances], cap=3) is not None:
        pass
    assert set(one.in_flight.values()) == {3}
    assert len(one.in_flight) == instances
    one.release("i0")
    assert one.take(FOUR[:instances], cap=3) == FOUR[0]


def test_what_was_tried_is_not_tried_again() -> None:
    one = balancer()
    tried: set[str] = set()
    while (upstream := one.take(FOUR, tried=tried)) is not None:
        assert upstream.name not in tried
        tried.add(upstream.name)
    assert len(tried) == 4


class TestTrouble:
    def test_one_that_refused_rests_at_once(self) -> None:
        one = balancer()
        one.eject("i0")
        assert "i0" not in drawn(one)

    def test_failures_in_a_row_make_it_rest_and_fewer_do_not(self) -> None:
        one = balancer()
        fail(one, "i0", times=FAILURES - 1)
        assert "i0" in drawn(one)
        fail(one, "i0", times=1)
        assert "i0" not in drawn(one)

    def test_a_sound_answer_between_them_begins_the_count_anew(self) -> None:
        one = balancer()
        fail(one, "i0", times=FAILURES - 1)
        one.judge("i0", True, FOUR)
        fail(one, "i0", times=FAILURES - 1)
        assert "i0" in drawn(one)

    def test_a_caller_who_left_says_nothing_either_way(self) -> None:
        one = balancer()
        fail(one, "i0", times=FAILURES - 1)
        one.judge("i0", None, FOUR)
        assert "i0" in drawn(one)
        fail(one, "i0", times=1)
        assert "i0" not in drawn(one)

    def test_after_its_rest_one_request_probes_it_and_no_other_goes_there(self) -> None:
        now = [0.0]
        one = balancer(now)
        fail(one, "i0")
        now[0] = REST_SECONDS
        assert one.take(FOUR) == FOUR[0]
        assert "i0" not in drawn(one)

    def test_a_probe_that_ends_soundly_brings_it_back(self) -> None:
        now = [0.0]
        one = balancer(now)
        fail(one, "i0")
        now[0] = REST_SECONDS
        one.take(FOUR)
        one.judge("i0", True, FOUR)
        one.release("i0")
        assert "i0" in drawn(one)

    def test_each_probe_that_fails_doubles_its_rest_up_to_the_longest(self) -> None:
        now = [0.0]
        one = balancer(now)
        fail(one, "i0")
        rests = []
        for _ in range(8):
            left = now[0]
            now[0] = one.troubled["i0"].until
            rests.append(now[0] - left)
            assert one.take(FOUR) == FOUR[0]
            one.release("i0")
            one.judge("i0", False, FOUR)
        assert rests == [2, 4, 8, 16, 32, 60, 60, LONGEST_REST_SECONDS]

    def test_a_probe_whose_caller_left_decides_nothing_and_the_next_request_probes(self) -> None:
        now = [0.0]
        one = balancer(now)
        fail(one, "i0")
        now[0] = REST_SECONDS
        assert one.take(FOUR) == FOUR[0]
        one.judge("i0", None, FOUR)
        assert one.take(FOUR) == FOUR[0]

    def test_a_full_instance_is_probed_once_it_has_room(self) -> None:
        now = [0.0]
        one = balancer(now)
        one.in_flight["i0"] = 1
        fail(one, "i0", among=FOUR[:2])
        now[0] = REST_SECONDS
        assert one.take(FOUR[:2], cap=1) == FOUR[1]
        one.release("i0")
        assert one.take(FOUR[:2], cap=1) == FOUR[0]

    def test_what_was_under_way_when_it_began_to_rest_does_not_lengthen_it(self) -> None:
        one = balancer()
        fail(one, "i0")
        fail(one, "i0", times=20)
        one.eject("i0")
        assert one.troubled["i0"].until == REST_SECONDS

    def test_never_more_than_half_rest_for_their_failures(self) -> None:
        one = balancer()
        for upstream in FOUR:
            fail(one, upstream.name)
        assert [one.is_ejected(upstream.name) for upstream in FOUR] == [True, True, False, False]

    def test_the_only_one_never_rests_for_its_failures(self) -> None:
        one = balancer()
        fail(one, "i0", among=FOUR[:1], times=50)
        assert not one.is_ejected("i0")

    def test_when_all_rest_they_are_tried_all_the_same(self) -> None:
        one = balancer()
        one.eject("i0")
        assert one.take(FOUR[:1]) == FOUR[0]

    def test_nothing_is_held_against_instances_that_are_gone(self) -> None:
        one = balancer()
        for upstream in FOUR:
            one.eject(upstream.name)
        one.forget(["i1"])
        assert one.troubled.keys() == {"i1"}
