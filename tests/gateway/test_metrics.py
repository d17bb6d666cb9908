"""What Prometheus reads of a gateway, read by Prometheus's own parser."""

import os
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import compiled
from gateway.metrics import BOUNDS_US, Duty, Metrics, Now
from gateway.routes import Route, Upstream
from gateway.totals import class_of
from tests.gateway.requests import ended

INSTANCES = (Upstream("tiny-0", "127.0.0.1", 1), Upstream("tiny-1", "127.0.0.1", 2, ready=False))
ROUTE = Route(5, "tiny", "local", project_id=1, revision_id=7, instances=INSTANCES)
NOW = Now(
    source="abc",
    routes={"tiny": ROUTE},
    in_flight={"tiny-0": 3},
    ejected=["tiny-0"],
    waiting={5: 4},
    sockets={5: 2},
    connections=9,
    refused={"invalid_api_key": 7},
    duties=[Duty("routes", 1_772_356_050.5, False), Duty("valkey", None, True)],
    spool_failures=2,
    unwritten_rows=6,
    passports_dropped=1,
)


def read(metrics: Metrics, now: Now = NOW) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels, each once, of families that are each declared once."""
    families = list(text_string_to_metric_families(metrics.render(now).decode()))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation and family.type != "unknown" for family in families)
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def value(page: dict[Any, float], name: str, **labels: str) -> float:
    return page[name, frozenset(labels.items())]


def test_every_request_counts_once_by_its_outcome() -> None:
    metrics = Metrics()
    metrics.fold([ended(), ended(), ended(429, code="rate_limited"), ended(499), ended(502, code="upstream_lost")])
    page = read(metrics)
    seen = {kind: value(page, "tir_gateway_requests_total", endpoint="tiny", status=kind) for kind in
            ("2xx", "4xx", "499", "5xx")}  # fmt: skip
    assert seen == {"2xx": 2, "4xx": 1, "499": 1, "5xx": 1}
    assert value(page, "tir_gateway_refusals_total", endpoint="tiny", code="rate_limited") == 1
    assert value(page, "tir_gateway_request_duration_seconds_count", endpoint="tiny") == 5


def test_a_bucket_holds_what_took_at_most_so_long() -> None:
    metrics = Metrics()
    took = [us + off for us in BOUNDS_US for off in (-1, 0, 1)]
    metrics.fold([ended(latency_us=us, ttft_us=us) for us in took] + [ended(latency_us=-5)])
    page = read(metrics)
    for name, counted in (
        ("tir_gateway_request_duration_seconds", [*took, 0]),
        ("tir_gateway_time_to_first_token_seconds", took),
    ):
        for us in BOUNDS_US:
            within = value(page, name + "_bucket", endpoint="tiny", le=str(us / 1_000_000))
            assert within == sum(one <= us for one in counted)
        assert value(page, name + "_bucket", endpoint="tiny", le="+Inf") == len(counted)
        assert value(page, name + "_sum", endpoint="tiny") == pytest.approx(sum(counted) / 1_000_000)


def test_amounts_add_up_and_never_fall() -> None:
    metrics = Metrics()
    one = ended(prompt_tokens=11, completion_tokens=5, bytes_in=100, bytes_out=700, queue_us=250_000, cold=True)
    metrics.fold([one, ended(prompt_tokens=3, estimated=True), ended(queue_us=500_000)])
    first = read(metrics)
    expected = {
        ("tir_gateway_tokens_total", "prompt"): 14,
        ("tir_gateway_tokens_total", "completion"): 5,
        ("tir_gateway_estimated_tokens_total", ""): 3,
        ("tir_gateway_request_bytes_total", ""): 100,
        ("tir_gateway_response_bytes_total", ""): 700,
        ("tir_gateway_waits_total", ""): 2,
        ("tir_gateway_cold_waits_total", ""): 1,
        ("tir_gateway_wait_seconds_total", ""): 0.75,
    }
    for (name, kind), amount in expected.items():
        assert value(first, name, endpoint="tiny", **({"kind": kind} if kind else {})) == amount, name
    metrics.fold([ended(503)])
    second = read(metrics)
    assert all(second[key] >= count for key, count in first.items() if key[0].endswith(("_total", "_count")))


def test_what_goes_on_now_is_told_by_endpoint_and_instance() -> None:
    page = read(Metrics())
    assert value(page, "tir_gateway_in_flight_requests", endpoint="tiny", instance="tiny-0") == 3
    assert value(page, "tir_gateway_in_flight_requests", endpoint="tiny", instance="tiny-1") == 0
    assert value(page, "tir_gateway_ready_instances", endpoint="tiny") == 1
    assert value(page, "tir_gateway_ejected_instances", endpoint="tiny") == 1
    assert value(page, "tir_gateway_waiting_requests", endpoint="tiny") == 4
    assert value(page, "tir_gateway_open_websockets", endpoint="tiny") == 2
    assert value(page, "tir_gateway_rejected_calls_total", code="invalid_api_key") == 7
    assert value(page, "tir_gateway_connections") == 9
    assert value(page, "tir_gateway_spool_failures_total") == 2
    assert value(page, "tir_gateway_unwritten_rows") == 6
    assert value(page, "tir_gateway_passports_dropped_total") == 1
    runs = "yes" if compiled.runs else "no"
    assert value(page, "tir_gateway_info", source="abc", compiled=runs) == 1


def test_what_never_worked_has_no_moment_and_is_said_to_fail() -> None:
    page = read(Metrics())
    assert value(page, "tir_gateway_last_success_timestamp_seconds", duty="routes") == 1_772_356_050.5
    assert ("tir_gateway_last_success_timestamp_seconds", frozenset({("duty", "valkey")})) not in page
    assert value(page, "tir_gateway_failing", duty="valkey") == 1


def test_the_process_is_told_as_every_prometheus_client_does() -> None:
    metrics = Metrics()
    metrics.late(0.002)
    page = read(metrics)
    assert value(page, "process_resident_memory_bytes") > 10 * 2**20
    assert value(page, "process_open_fds") >= 3
    assert value(page, "process_cpu_seconds_total") == pytest.approx(sum(os.times()[:2]), abs=1)
    assert value(page, "tir_gateway_event_loop_lag_seconds_bucket", le="0.0025") == 1


def test_a_new_endpoint_of_an_old_name_begins_anew_and_a_gone_one_is_no_longer_shown() -> None:
    metrics = Metrics()
    metrics.fold([ended(), ended()])
    metrics.fold([ended(endpoint=6)])
    again = replace(NOW, routes={"tiny": replace(ROUTE, endpoint_id=6)})
    assert value(read(metrics, again), "tir_gateway_requests_total", endpoint="tiny", status="2xx") == 1
    assert not any(name == "tir_gateway_requests_total" for name, _ in read(metrics, replace(NOW, routes={})))


def test_whatever_a_label_holds_it_stays_one_label() -> None:
    metrics = Metrics()
    code = 'a"b\\c\n{d="e"} 1'
    metrics.fold([ended(500, code=code)])
    assert value(read(metrics), "tir_gateway_refusals_total", endpoint="tiny", code=code) == 1


def test_an_engine_that_makes_up_a_code_for_each_error_makes_no_endless_page() -> None:
    metrics = Metrics()
    metrics.fold([ended(500, code=f"req-{number}") for number in range(1000)])
    page = read(metrics)
    counts = [count for (name, _), count in page.items() if name == "tir_gateway_refusals_total"]
    assert len(counts) < 60
    assert sum(counts) == 1000
    assert value(page, "tir_gateway_refusals_total", endpoint="tiny", code="other") == 950


@pytest.mark.parametrize("status", [100, 200, 302, 404, 499, 500, 999])
def test_no_status_is_without_a_class(status: int) -> None:
    metrics = Metrics()
    metrics.fold([ended(status)])
    assert value(read(metrics), "tir_gateway_requests_total", endpoint="tiny", status=class_of(status)) == 1


@pytest.mark.parametrize(
    ("token", "peer", "header", "forwarded", "allowed"),
    [
        ("", "127.0.0.1", None, False, True),
        ("", "::1", None, False, True),
        ("", "::ffff:127.0.0.1", None, False, True),
        ("", "10.0.0.7", None, False, False),
        ("", "10.0.0.7", "Bearer ", False, False),
        ("", "nowhere", None, False, False),
        ("", "", None, False, False),
        ("", "127.0.0.1", None, True, False),  # a proxy on this machine speaks for anybody
        ("s3cret", "10.0.0.7", "Bearer s3cret", True, True),
        ("s3cret", "10.0.0.7", "bearer  s3cret", False, True),
        ("s3cret", "10.0.0.7", "Bearer s3cre", False, False),
        ("s3cret", "10.0.0.7", "Basic s3cret", False, False),
        ("s3cret", "10.0.0.7", "Bearer sécrét", False, False),
        ("s3cret", "127.0.0.1", None, False, False),
    ],
)
def test_metrics_open_to_this_machine_or_to_the_token(
    token: str, peer: str, header: str | None, forwarded: bool, allowed: bool
) -> None:
    metrics = Metrics(token)
    assert metrics.allowed(peer, header, forwarded=forwarded) is allowed
    assert not token or Metrics(token, proxied=True).allowed(peer, header) is allowed
    assert token or not Metrics(proxied=True).allowed(peer, header)
    assert metrics.denial.status == (401 if token else 403)
    assert b"METRICS_TOKEN" in metrics.denial.body()
    assert b"s3cret" not in metrics.denial.body()
