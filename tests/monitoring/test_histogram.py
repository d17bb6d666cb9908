"""Percentiles: within 4.4 % of the truth, the same however the parts were added up."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.histogram import BOUNDS, BUCKETS, Histogram, bucket_of, merged, middle

durations = st.lists(st.integers(min_value=1_000, max_value=BOUNDS[-1] - 1), min_size=1, max_size=200)


def of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


def test_the_scale_runs_from_one_millisecond_to_seventeen_and_a_half_minutes() -> None:
    assert len(BOUNDS) == BUCKETS + 1
    assert BOUNDS[0] == 1_000
    assert BOUNDS[-1] == 1_048_576_000
    assert all(low < high for low, high in itertools.pairwise(BOUNDS))


@pytest.mark.parametrize("bucket", range(BUCKETS))
def test_a_bucket_holds_its_lower_bound_and_not_its_upper(bucket: int) -> None:
    assert bucket_of(BOUNDS[bucket]) == bucket
    assert bucket_of(BOUNDS[bucket + 1] - 1) == bucket


@pytest.mark.parametrize(("value", "bucket"), [(0, 0), (-5, 0), (999, 0), (BOUNDS[-1], 159), (10**12, 159)])
def test_what_lies_outside_the_scale_counts_at_its_end(value: int, bucket: int) -> None:
    assert bucket_of(value) == bucket


@pytest.mark.parametrize("bucket", range(BUCKETS))
def test_the_harmonic_middle_is_at_most_4_4_percent_from_anything_in_its_bucket(bucket: int) -> None:
    for value in (BOUNDS[bucket], BOUNDS[bucket + 1]):
        assert abs(middle(bucket) - value) / value <= 0.044


def test_nothing_counted_has_no_percentile_and_no_mean() -> None:
    assert Histogram().quantile(0.99) is None
    assert Histogram().mean() is None
    assert Histogram().slice() == (0, [])


@given(durations, st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
def test_every_percentile_is_within_4_5_percent_of_the_sorted_list(values: list[int], q: float) -> None:
    ordered = sorted(values)
    rank = max(q * len(values), 1)
    truth = next(v for i, v in enumerate(ordered, 1) if i >= rank)
    found = of(values).quantile(q)
    assert found is not None
    assert abs(found - truth) / truth <= 0.045


@given(durations, durations)
def test_merging_parts_equals_counting_the_whole(left: list[int], right: list[int]) -> None:
    assert merged([of(left), of(right)]) == of(left + right)


@given(durations)
def test_what_is_stored_comes_back_unchanged(values: list[int]) -> None:
    histogram = of(values)
    first, counts = histogram.slice()
    assert counts[0]
    assert counts[-1]
    assert Histogram.from_json(histogram.as_json()) == histogram
    again = Histogram.stored(
        first, counts, count=histogram.count, sum_us=histogram.sum_us, max_us=histogram.max_us
    )
    assert again == histogram


def test_sum_count_and_maximum_are_exact() -> None:
    histogram = of([1_234, 55_555, 7])
    assert (histogram.count, histogram.sum_us, histogram.max_us) == (3, 56_796, 55_555)
    assert histogram.mean() == 18_932


def test_a_percentile_never_exceeds_the_longest_seen() -> None:
    assert of([400]).quantile(0.5) == 400
    assert of([10**10]).quantile(0.99) == middle(159)


def test_a_clock_set_back_counts_as_zero() -> None:
    histogram = of([-20])
    assert (histogram.count, histogram.sum_us) == (1, 0)


@pytest.mark.parametrize("q", [-0.1, 1.1])
def test_a_quantile_outside_nought_to_one_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        of([5_000]).quantile(q)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"first": 0, "counts": [1], "count": 1, "sum_us": 5}, "without 'max_us'"),
        ({"first": 159, "counts": [1, 1], "count": 2, "sum_us": 5, "max_us": 5}, "outside"),
        ({"first": -1, "counts": [1], "count": 1, "sum_us": 5, "max_us": 5}, "outside"),
        ({"first": 0, "counts": [1], "count": 2, "sum_us": 5, "max_us": 5}, "counts 1"),
        ({"first": 0, "counts": 7, "count": 2, "sum_us": 5, "max_us": 5}, "whole numbers"),
    ],
)
def test_a_broken_stored_histogram_is_refused_and_not_half_read(broken: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Histogram.from_json(broken)
