"""Charts and tiles as data: gaps stay gaps, zero is zero, tones follow the specification."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from monitoring import charts, numbers
from monitoring.charts import Life
from monitoring.traffic import Total
from monitoring.window import RANGES, Window, aligned
from tests.monitoring.measured import AT, histogram

WINDOW = Window.named("15m", at=AT)
MINUTE = timedelta(minutes=1)


def total(*latencies: float, failed: int = 0) -> Total:
    latency = histogram(*latencies)
    return Total(requests=len(latencies), succeeded=len(latencies) - failed, server_errors=failed, latency=latency)


@pytest.mark.parametrize("name", list(RANGES))
def test_buckets_begin_at_the_same_moments_for_everybody(name: str) -> None:
    one, other = (Window.named(name, at=AT + timedelta(seconds=n)) for n in (0, 20))
    assert one.buckets(one.range.step) == other.buckets(other.range.step)
    assert all(start == aligned(start, one.range.step) for start in one.buckets(one.range.step))


def test_a_minute_without_requests_is_zero_a_second_but_has_no_latency() -> None:
    totals = {WINDOW.buckets(60)[3]: total(*[100] * 30)}
    rate = charts.requests(totals, WINDOW, since=AT - timedelta(days=1)).figure["data"][0]["y"]
    p50 = charts.latency(totals, WINDOW).figure["data"][0]["y"]
    assert (rate[2], rate[3]) == (0, 0.5)
    assert p50[2] is None
    assert p50[3] == pytest.approx(100, rel=0.05)


def test_before_the_endpoint_there_is_a_gap_not_a_zero() -> None:
    rate = charts.requests({}, WINDOW, since=AT - 5 * MINUTE).figure["data"][0]["y"]
    assert rate[0] is None
    assert rate[-2] == 0


def test_the_running_minute_is_a_rate_over_the_time_it_has_run() -> None:
    totals = {WINDOW.buckets(60)[-1]: total(*[10] * 30)}
    assert charts.requests(totals, WINDOW, since=AT - MINUTE).figure["data"][0]["y"][-1] == 1


def test_a_percentile_says_of_how_many_and_p99_waits_for_a_hundred() -> None:
    start = WINDOW.buckets(60)[3]
    drawn = charts.latency({start: total(*[50] * 99)}, WINDOW).figure["data"]
    assert drawn[0]["customdata"][3] == 99
    assert drawn[2]["y"][3] is None
    assert charts.latency({start: total(*[50] * 100)}, WINDOW).figure["data"][2]["y"][3] is not None


def test_no_number_that_json_cannot_hold_leaves_a_chart() -> None:
    start = WINDOW.buckets(15)[0]
    drawn = charts.usage({start: float("nan")}, {start: float("inf")}, WINDOW)
    json.dumps(drawn.figure, allow_nan=False)
    assert drawn.figure["data"][0]["y"][0] is None


def test_an_instance_that_lived_between_two_buckets_still_shows() -> None:
    begin = AT - 4 * MINUTE
    lives = [Life(begin, begin + timedelta(seconds=5), begin + timedelta(seconds=9))]
    drawn = charts.instances(lives, WINDOW).figure["data"]
    assert [y for y in drawn[0]["y"] if y] == [1]
    assert [y for y in drawn[1]["y"] if y] == [1]
    assert drawn[0]["y"][-1] == 0


def test_the_table_has_every_moment_once_and_gaps_as_none() -> None:
    rows = charts.table(charts.latency({}, WINDOW).figure)
    assert len(rows["rows"]) == 16
    assert rows["rows"][0][1:] == [None, None, None]


@pytest.mark.parametrize(
    ("tone", "value", "expected"),
    [
        (numbers.latency_tone, 999, "ok"),
        (numbers.latency_tone, 1000, "warn"),
        (numbers.latency_tone, 5001, "bad"),
        (numbers.error_tone, 0.9, "ok"),
        (numbers.error_tone, 3, "idle"),
        (numbers.error_tone, 5.1, "warn"),
        (numbers.error_tone, 10.1, "bad"),
        (numbers.gpu_tone, 19, "warn"),
        (numbers.gpu_tone, 70, "ok"),
        (numbers.gpu_tone, 90, "idle"),
        (numbers.gpu_tone, 96, "bad"),
        (numbers.memory_tone, 79, "ok"),
        (numbers.memory_tone, 85, "idle"),
        (numbers.memory_tone, 91, "warn"),
        (numbers.memory_tone, 96, "bad"),
    ],
)
def test_tones_follow_the_healthy_ranges(tone: object, value: float, expected: str) -> None:
    assert tone(value)[0] == expected  # type: ignore[operator]
    assert tone(None) is None  # type: ignore[operator]
