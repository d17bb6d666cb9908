"""Running totals: every record once, in the right minute, quarter hour and class."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.totals import Record, Total, Totals, class_of

AT = 1_764_000_000.0 - 1_764_000_000 % 900


def record(at: float = AT, status: int = 200, **more: Any) -> Record:
    return Record(at, endpoint_id=1, revision_id=2, key_id=3, status=status, latency_us=5_000, **more)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (200, "2xx"),
        (204, "2xx"),
        (400, "4xx"),
        (429, "4xx"),
        (499, "499"),
        (500, "5xx"),
        (504, "5xx"),
        (101, "2xx"),
        (304, "2xx"),
        (600, "5xx"),
    ],
)
def test_each_status_has_one_class(status: int, name: str) -> None:
    assert class_of(status) == name


def test_a_minute_and_a_quarter_are_half_open() -> None:
    totals = Totals("one")
    for at in (AT, AT + 59.999, AT + 60, AT + 899.999, AT + 900):
        totals.add(record(at))
    assert [(key[2] - AT, total.requests) for key, total in totals.minutes.items()] == [
        (0, 2), (60, 1), (840, 1), (900, 1),
    ]  # fmt: skip
    assert [(key[4] - AT, total.requests) for key, total in totals.quarters.items()] == [(0, 4), (900, 1)]


def test_estimated_tokens_are_counted_among_and_beside_the_others() -> None:
    totals = Totals("one")
    totals.add(record(prompt_tokens=5, completion_tokens=7))
    totals.add(record(prompt_tokens=1, completion_tokens=2, estimated=True))
    [total], [used] = totals.minutes.values(), totals.quarters.values()
    assert (total.prompt_tokens, total.completion_tokens, total.estimated_tokens) == (6, 9, 3)
    assert (used.prompt_tokens, used.completion_tokens, used.estimated_tokens) == (6, 9, 3)


def test_only_what_changed_is_written() -> None:
    totals = Totals("one")
    totals.add(record(AT))
    assert totals.take_dirty()
    assert not totals.take_dirty()
    totals.add(record(AT + 60))
    rows = totals.take_dirty()
    assert [key[2] for key in rows.minutes] == [AT + 60]
    assert [total.requests for total in rows.quarters.values()] == [2]


def test_rows_being_written_do_not_change_under_the_writer() -> None:
    totals = Totals("one")
    totals.add(record())
    rows = totals.take_dirty()
    totals.add(record())
    assert [total.requests for total in rows.minutes.values()] == [1]
    assert [total.requests for total in rows.quarters.values()] == [1]


def test_what_could_not_be_written_is_written_next_time_with_what_came_since() -> None:
    totals = Totals("one")
    totals.add(record())
    totals.put_back(totals.take_dirty())
    totals.add(record())
    assert [total.requests for total in totals.take_dirty().minutes.values()] == [2]


def test_a_quarter_is_forgotten_only_once_it_is_over_and_written() -> None:
    totals = Totals("one")
    totals.add(record(AT))
    assert totals.written_up_to(AT + 2_000) == AT
    totals.take_dirty()
    assert totals.written_up_to(AT + 899) == AT
    assert totals.written_up_to(AT + 2_000) == AT + 1_800
    totals.drop(int(AT) + 900)
    assert not totals.minutes
    assert not totals.quarters


statuses = st.lists(st.tuples(st.integers(0, 5_000), st.sampled_from([200, 404, 499, 502])), max_size=60)


@given(statuses, st.integers(0, 60))
def test_split_in_any_two_and_merged_it_is_the_same(requests: list[tuple[int, int]], place: int) -> None:
    whole, left, right = Total(), Total(), Total()
    for number, (offset, status) in enumerate(requests):
        one = record(AT + offset, status, prompt_tokens=offset)
        whole.add(one)
        (left if number < place else right).add(one)
    left.merge(right)
    assert left == whole
    assert sum(whole.classes.values()) == whole.requests == whole.latency.count
