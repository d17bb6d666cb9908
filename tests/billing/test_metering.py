"""How much was used, to the millisecond and the paisa."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing import metering
from billing.metering import Answered, Evidence, Period, Ran, Rate, quantities
from billing.models import Unit

T0 = datetime(2026, 11, 25, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
C6I = 1
PERIOD = Period(T0, T0 + 4 * HOUR)


def price(amount: str, since: datetime = T0 - timedelta(days=30), kind: int | None = C6I) -> Rate:
    unit = Unit.REQUEST if kind is None else Unit.INSTANCE_HOUR
    return Rate(unit, kind, Decimal(amount), since)


RATES = [price("3.2"), price("0.001", kind=None)]


def cost(evidence: Evidence, period: Period = PERIOD, rates: list[Rate] = RATES) -> Decimal:
    return sum((line.cost for line in quantities(evidence, period, rates)), Decimal(0))


def test_an_hour_of_one_instance_costs_its_hourly_price() -> None:
    assert cost(Evidence([Ran(C6I, T0, T0 + HOUR)])) == Decimal("3.2")


def test_an_instance_is_billed_from_its_first_answer_not_from_its_start() -> None:
    one = Evidence([Ran(C6I, T0 + HOUR / 2, T0 + HOUR)])
    assert cost(one) == Decimal("1.6")


def test_an_instance_that_never_answered_is_free_however_long_it_tried() -> None:
    assert quantities(Evidence([Ran(C6I, None, T0 + HOUR), Ran(C6I, None, None)]), PERIOD, RATES) == []


def test_a_crash_ends_the_bill_where_the_instance_ended() -> None:
    crash_loop = [Ran(C6I, None, T0 + timedelta(minutes=n)) for n in range(1, 6)]
    served_then_crashed = Ran(C6I, T0, T0 + timedelta(minutes=15))
    assert cost(Evidence([served_then_crashed, *crash_loop])) == Decimal("0.8")


def test_what_still_runs_is_billed_to_the_end_of_the_period() -> None:
    assert cost(Evidence([Ran(C6I, T0 - HOUR, None)])) == Decimal("12.8")


def test_intervals_that_only_touch_a_period_cost_nothing_in_it() -> None:
    before = Ran(C6I, T0 - HOUR, T0)
    after = Ran(C6I, PERIOD.end, None)
    assert quantities(Evidence([before, after]), PERIOD, RATES) == []


def test_a_price_change_cuts_an_interval_and_leaves_the_past_alone() -> None:
    rates = [price("3.2"), price("4", T0 + HOUR)]
    lines = quantities(Evidence([Ran(C6I, T0, T0 + 3 * HOUR)]), PERIOD, rates)
    assert [(line.hours, line.rate and line.rate.amount) for line in lines] == [
        (Decimal(2), Decimal(4)),
        (Decimal(1), Decimal("3.2")),
    ]
    assert sum(line.cost for line in lines) == Decimal("11.2")


def test_two_price_changes_and_one_at_the_very_end_are_each_cut_once() -> None:
    rates = [price("1"), price("2", T0 + HOUR), price("3", T0 + 2 * HOUR), price("9", T0 + 3 * HOUR)]
    assert cost(Evidence([Ran(C6I, T0, T0 + 3 * HOUR)]), rates=rates) == Decimal(6)


def test_a_future_price_does_not_count_yet() -> None:
    assert cost(Evidence([Ran(C6I, T0, T0 + HOUR)]), rates=[price("3.2"), price("9", T0 + 9 * HOUR)]) == Decimal(
        "3.2"
    )


def test_use_without_a_price_shows_with_its_quantity_and_costs_nothing() -> None:
    (line,) = quantities(Evidence([Ran(7, T0, T0 + HOUR)]), PERIOD, RATES)
    assert (line.rate, line.hours, line.cost) == (None, Decimal(1), Decimal(0))


def test_requests_are_counted_in_the_period_of_their_quarter_hour() -> None:
    quarter = timedelta(minutes=15)
    answered = [
        Answered(T0 - quarter, 100),
        Answered(T0, 1000),
        Answered(PERIOD.end - quarter, 500),
        Answered(PERIOD.end, 100),
    ]
    (line,) = quantities(Evidence(answered=answered), PERIOD, RATES)
    assert (line.quantity, line.cost) == (1500, Decimal("1.500"))


def test_requests_take_the_price_that_held_when_their_quarter_began() -> None:
    rates = [price("0.001", kind=None), price("0.002", T0 + timedelta(minutes=20), kind=None)]
    answered = [Answered(T0 + timedelta(minutes=15 * n), 1000) for n in range(3)]
    assert cost(Evidence(answered=answered), rates=rates) == Decimal(4)


def test_many_instances_of_one_type_make_one_line() -> None:
    (line,) = quantities(Evidence([Ran(C6I, T0, T0 + HOUR)] * 10), PERIOD, RATES)
    assert (line.hours, line.cost) == (Decimal(10), Decimal(32))


moments = st.integers(0, 4 * 3600 * 10**6).map(lambda us: T0 + timedelta(microseconds=us))


@given(st.lists(st.tuples(moments, moments), max_size=6), st.lists(moments, max_size=8), moments)
def test_the_parts_of_a_period_always_add_up_to_the_whole(
    spans: list[tuple[datetime, datetime]], cuts: list[datetime], change: datetime
) -> None:
    evidence = Evidence([Ran(C6I, min(span), max(span)) for span in spans])
    rates = [price("3.2"), price("7.77", change)]
    edges = sorted({PERIOD.start, *cuts, PERIOD.end})
    parts = [used(evidence, Period(*pair), rates) for pair in itertools.pairwise(edges)]
    assert sum(parts, Counter()) == used(evidence, PERIOD, rates)


def used(evidence: Evidence, period: Period, rates: list[Rate]) -> Counter[Rate | None]:
    """Milliseconds by rate."""
    return Counter({line.rate: line.quantity for line in quantities(evidence, period, rates)})


def test_a_call_costs_its_price_or_its_share_of_the_instances_hour() -> None:
    three_seconds = Decimal(3)
    by_time = metering.of_call(seconds=three_seconds, per_hour=Decimal("12"), per_request=None)
    by_call = metering.of_call(seconds=three_seconds, per_hour=Decimal("12"), per_request=Decimal("0.001"))
    assert (by_time, by_call) == (Decimal("0.01"), Decimal("0.001"))
    assert metering.of_call(seconds=three_seconds, per_hour=None, per_request=None) is None
