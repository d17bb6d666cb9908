"""What ticks say: sums over gateways, true percentiles, and nothing where nothing was measured."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest
from pytest_django import DjangoAssertNumQueries

from endpoints import bell
from endpoints.models import Endpoint, Instance
from monitoring import gateways, presence, retention, tick
from monitoring.models import KeyTraffic, LogLine, Sample, Traffic
from monitoring.presence import Watched
from tests import make
from tests.monitoring import measured
from tests.monitoring.measured import AT, told, word

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _quiet() -> None:
    valkey = bell.valkey()
    for key in [*valkey.scan_iter(match="tir:gateway:*"), presence.KEY]:
        valkey.delete(key)


@pytest.fixture
def endpoint() -> Endpoint:
    return make.endpoint(ready=1, at=AT - timedelta(hours=1))


def data_of(endpoint: Endpoint, *, charts: bool = False) -> dict[str, object]:
    watched = Watched(frozenset({endpoint.pk}), frozenset())
    (_, message), *_ = tick.messages_for(watched, at=AT, charts=charts)
    json.dumps(message, allow_nan=False)
    data: dict[str, object] = message["data"]
    return data


def tiles(endpoint: Endpoint) -> dict[str, dict[str, object]]:
    return data_of(endpoint)["tiles"]  # type: ignore[return-value]


def test_gateways_add_up_and_their_percentiles_are_merged_never_averaged() -> None:
    words = [word(1, told(*[10] * 99)), word(1, told(*[1000] * 11), in_flight={"a": 2})]
    now = gateways.merge(words)[1]
    assert now.window.requests == 110
    assert now.per_second == 11
    assert now.in_flight == {"a": 2}
    p50, p95 = now.window.latency_ms(0.5), now.window.latency_ms(0.95)
    assert p50 == pytest.approx(10, rel=0.05)  # the average of both medians would be 505
    assert p95 == pytest.approx(1000, rel=0.05)


def test_what_waits_for_an_instance_is_said_beside_what_is_carried(endpoint: Endpoint) -> None:
    assert "waiting" not in str(tiles(endpoint)["rps"]["note"])
    for source, queued in (("g1", 40), ("g2", 10)):
        measured.speak(source, word(endpoint.pk, told(5), in_flight={"a": 1}, queued=queued))
    assert tiles(endpoint)["rps"]["note"] == "2 in flight, 50 waiting, last 10 s"


def test_a_gateway_that_talks_nonsense_leaves_out_only_itself() -> None:
    good = word(1, told(5, 5))
    assert (
        gateways.merge([{"endpoints": [1]}, {"endpoints": {"1": {"window": 3}, "x": {}}}, good])[1].window.requests
        == 2
    )
    bell.valkey().set("tir:gateway:bad", "{not json", ex=60)
    measured.speak("good", good)
    assert len(gateways.read(bell.valkey())) == 1


def test_a_gateway_in_the_minute_before_does_not_count_for_the_new_one() -> None:
    now = gateways.merge([word(1, told(5), minute_at=60), word(1, told(5, 5), minute_at=120)])[1]
    assert (now.minute_at, now.minute.requests) == (120, 2)


def test_without_traffic_there_is_no_latency_and_no_error_rate_but_a_true_zero_rate(endpoint: Endpoint) -> None:
    measured.speak("g1", {"at": time.time(), "source": "g1", "endpoints": {}})
    now = tiles(endpoint)
    assert now["p50"]["value"] == now["errors"]["value"] == "No requests"
    assert now["rps"]["value"] == 0


def test_without_any_gateway_the_rate_is_unknown_not_zero(endpoint: Endpoint) -> None:
    assert tiles(endpoint)["rps"]["value"] == "No gateway answers"


def test_p99_needs_a_hundred_requests(endpoint: Endpoint) -> None:
    measured.traffic(endpoint, AT.replace(second=0), *[20] * 99)
    assert tiles(endpoint)["p99"]["value"] == "Under 100 requests"
    measured.traffic(endpoint, AT.replace(second=0), 20, source="g2")
    assert tiles(endpoint)["p99"]["value"] == pytest.approx(20, rel=0.05)


def test_the_running_minute_counts_once_whether_written_or_told(endpoint: Endpoint) -> None:
    minute = AT.replace(second=0)
    measured.traffic(endpoint, minute, *[20] * 5)
    measured.speak("g1", word(endpoint.pk, told(*[20] * 8), minute_at=int(minute.timestamp())))
    assert str(tiles(endpoint)["p50"]["note"]).startswith("n = 8,")


def test_a_missing_sample_is_not_measured_and_an_old_one_says_nothing(endpoint: Endpoint) -> None:
    assert tiles(endpoint)["memory"]["value"] == "Not measured yet"
    instance = endpoint.instances.get()
    Sample.objects.create(endpoint=endpoint, instance=instance, at=AT - timedelta(minutes=5), cpu_millis=100)
    assert tiles(endpoint)["cpu"]["value"] == "Not measured yet"
    Sample.objects.create(endpoint=endpoint, instance=instance, at=AT - timedelta(seconds=15), cpu_millis=1000)
    now = tiles(endpoint)
    assert (now["cpu"]["value"], now["memory"]["value"]) == (50, "Not measured yet")
    assert str(now["gpu"]["value"]).startswith("Not measured here: ")


def test_charts_get_their_points_with_one_number_a_trace(endpoint: Endpoint) -> None:
    points = data_of(endpoint, charts=True)["charts"]
    assert {"requests", "latency", "cpu", "memory", "gpu", "instances", "cost"} <= set(points)  # type: ignore[call-overload]
    assert len(points["requests"]["y"]) == 4  # type: ignore[index]
    assert points["latency"]["y"] == [None, None, None]  # type: ignore[index]
    assert "charts" not in data_of(endpoint)


def test_charts_get_points_once_in_five_seconds_also_where_ticks_are_left_out() -> None:
    start = AT.replace(second=0)
    for key in bell.valkey().scan_iter(match=f"{tick.CHARTED}*"):
        bell.valkey().delete(key)
    came = (0, 1, 4, 7, 8, 14)
    assert [
        second for second in came if tick.first_in_its_span(bell.valkey(), at=start + timedelta(seconds=second))
    ] == [0, 7, 14]


def test_nobody_looking_means_no_work(
    endpoint: Endpoint, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        assert tick.tick(at=AT) == 0


def test_a_tick_is_encoded_once_and_its_points_travel_apart(endpoint: Endpoint) -> None:
    watched = Watched(frozenset({endpoint.pk}), frozenset())
    ((_, message),) = tick.messages_for(watched, at=AT, charts=True)
    numbers, points = tick.events_of(message)
    assert (numbers["charts"], points["charts"]) == (False, True)
    said, drawn = json.loads(numbers["text"]), json.loads(points["text"])
    assert said["at"] == drawn["at"] == AT.isoformat()
    assert "charts" not in said["data"]
    assert set(drawn["data"]) == {"charts"}
    assert said["data"] | drawn["data"] == message["data"]


def test_looking_lapses_when_nobody_renews_it(endpoint: Endpoint) -> None:
    valkey, now = bell.valkey(), AT.timestamp()
    presence.mark(valkey, bell.endpoint_group(endpoint.pk), at=now)
    presence.mark(valkey, "nonsense", at=now)
    assert presence.watched(valkey, at=now + 5).endpoints == {endpoint.pk}
    assert not presence.watched(valkey, at=now + presence.LIVES_SECONDS + 1)


@pytest.mark.parametrize("many", [1, 15])
def test_a_tick_takes_the_same_queries_however_many_look(
    many: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    project = make.project()
    ones = [make.endpoint(project, ready=1) for _ in range(many)]
    watched = Watched(frozenset(one.pk for one in ones), frozenset({project.pk}))
    with django_assert_num_queries(8):
        messages = tick.messages_for(watched, at=AT)
    assert len(messages) == many + 1
    assert set(messages[-1][1]["data"]["endpoints"]) == {one.name for one in ones}


def test_retention_keeps_bills_evidence_and_the_line_that_collection_goes_on_from(endpoint: Endpoint) -> None:
    instance = endpoint.instances.get()
    long_ago = AT - timedelta(days=400)
    measured.traffic(endpoint, long_ago, 10)
    Sample.objects.create(endpoint=endpoint, instance=instance, at=long_ago)
    KeyTraffic.objects.create(
        endpoint=endpoint, revision=endpoint.revisions.get(), status_class="2xx", quarter=long_ago, source="g1"
    )
    measured.lines(instance, 5)
    LogLine.objects.update(at=long_ago)
    measured.traffic(endpoint, AT, 10)
    assert retention.expire(at=AT) == {"traffic": 1, "samples": 1, "log_lines": 4, "requests": 0}
    assert LogLine.objects.get().sequence == 5
    assert (Traffic.objects.count(), KeyTraffic.objects.count(), Instance.objects.count()) == (1, 1, 1)
