"""Who answers: the less busy of two, and never one that just refused while another can."""

import random
from collections import Counter

from gateway.balance import EJECT_SECONDS, Balancer
from gateway.routes import Upstream

FOUR = [Upstream(f"i{n}", "127.0.0.1", 1000 + n) for n in range(4)]


def balancer(now: list[float] | None = None) -> Balancer:
    clock = now or [0.0]
    return Balancer(lambda: clock[0], draw=random.Random(7))


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


def test_what_was_taken_and_released_leaves_nothing() -> None:
    one = balancer()
    taken = [one.take(FOUR) for _ in range(9)]
    for upstream in taken:
        assert upstream is not None
        one.release(upstream.name)
    assert one.in_flight == {}


def test_nothing_ready_gives_nothing() -> None:
    assert balancer().take([]) is None


def test_what_was_tried_is_not_tried_again() -> None:
    one = balancer()
    tried: set[str] = set()
    while (upstream := one.take(FOUR, tried=tried)) is not None:
        assert upstream.name not in tried
        tried.add(upstream.name)
    assert len(tried) == 4


def test_an_ejected_one_rests_and_comes_back() -> None:
    now = [0.0]
    one = balancer(now)
    one.eject("i0")
    chosen = Counter(upstream.name for _ in range(50) if (upstream := one.take(FOUR)))
    assert "i0" not in chosen
    now[0] = EJECT_SECONDS
    assert not one.is_ejected("i0")


def test_one_that_answered_again_is_chosen_at_once() -> None:
    one = balancer()
    one.eject("i0")
    one.restore("i0")
    assert not one.is_ejected("i0")


def test_when_all_are_ejected_they_are_tried_all_the_same() -> None:
    one = balancer()
    one.eject("i0")
    assert one.take(FOUR[:1]) == FOUR[0]
