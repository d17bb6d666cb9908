"""Fragments of the endpoint page: what they say, to whom, and in how many queries."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from accounts.models import User
from accounts.roles import Role
from endpoints.models import Endpoint
from monitoring.board import minute_of
from monitoring.cards import cards
from monitoring.models import Sample
from tests import make
from tests.monitoring import measured

pytestmark = pytest.mark.django_db


@pytest.fixture
def endpoint() -> Endpoint:
    return make.endpoint(ready=1)


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def url(name: str, of: Endpoint, **more: str) -> str:
    return reverse(f"monitoring:{name}", kwargs={"project": of.project.slug, "name": of.name, **more})


def doors(of: Endpoint) -> list[str]:
    return [
        url("kpis", of),
        url("charts", of),
        *(url(kind, of, chart=chart) for kind in ("chart", "chart-csv") for chart in cards()),
        url("logs", of),
        url("log-download", of),
        reverse("billing:cost", kwargs={"project": of.project.slug, "name": of.name}),
        reverse("billing:project_cost", kwargs={"project": of.project.slug}),
    ]


def strict(text: str | bytes) -> Any:
    """JSON as browsers read it: NaN and Infinity are errors."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


def test_every_door_opens_for_a_viewer_and_stays_shut_for_a_stranger(endpoint: Endpoint) -> None:
    measured.lines(endpoint.instances.get(), 1)
    viewer, charlie = as_(make.member(endpoint.project, "bob", Role.VIEWER)), as_(make.user("charlie"))
    for door in doors(endpoint):
        assert viewer.get(door).status_code == 200, door
        assert charlie.get(door).status_code == 404, door
        assert Client().get(door).status_code == 302, door


def test_a_billing_member_sees_costs_and_charts_but_no_logs(endpoint: Endpoint) -> None:
    bob = as_(make.member(endpoint.project, "bob", Role.BILLING))
    for name in ("logs", "log-download"):
        assert bob.get(url(name, endpoint)).status_code == 403
    assert bob.get(url("kpis", endpoint)).status_code == 200


def test_an_idle_endpoint_says_no_requests_and_why_there_is_no_gpu_number(endpoint: Endpoint) -> None:
    page = as_(make.user("alice")).get(url("kpis", endpoint)).content.decode()
    assert page.count("No requests") == 4  # p50, p95, p99, error rate
    assert "Not measured here: no NVIDIA driver on this machine" in page
    assert "nan" not in page.lower().replace("instan", "")


def test_a_chart_with_nothing_in_it_says_so_instead_of_drawing_an_axis(endpoint: Endpoint) -> None:
    alice = as_(make.user("alice"))
    page = alice.get(url("charts", endpoint)).content.decode()
    assert page.count("No requests in this period.</p>") == 2
    assert page.count('data-plot hidden role="img"') == 4  # CPU and memory too
    now = timezone.now().replace(second=0, microsecond=0)
    Endpoint.objects.filter(pk=endpoint.pk).update(created_at=now - timedelta(hours=1))
    measured.traffic(endpoint, now - timedelta(minutes=2), 100)
    page = alice.get(url("charts", endpoint), {"only": "requests,latency"}).content.decode()
    assert page.count("hidden><p>No requests in this period.") == 2
    assert "data-plot hidden" not in page


def test_a_stopped_endpoint_wants_no_instances(endpoint: Endpoint) -> None:
    alice = make.user("alice")
    assert "1 wanted" in as_(alice).get(url("kpis", endpoint)).content.decode()
    Endpoint.objects.filter(pk=endpoint.pk).update(desired="stopped")
    assert "0 wanted" in as_(alice).get(url("kpis", endpoint)).content.decode()


def test_the_tiles_show_what_was_measured(endpoint: Endpoint) -> None:
    now = timezone.now()
    measured.traffic(endpoint, now.replace(second=0, microsecond=0), *[100] * 99, 9000, failed=20)
    Sample.objects.create(
        endpoint=endpoint, instance=endpoint.instances.get(), at=now, memory_bytes=4 * 1024**3 * 92 // 100
    )
    page = as_(make.user("alice")).get(url("kpis", endpoint)).content.decode()
    assert "n = 100" in page
    assert "20 %" in page
    assert "Critical" in page
    assert "92 %" in page


def test_a_chart_is_strict_json_with_a_table_of_the_same_numbers(endpoint: Endpoint) -> None:
    measured.traffic(endpoint, timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=2), 50, 60)
    alice = as_(make.user("alice"))
    for name in cards():
        answer = strict(alice.get(url("chart", endpoint, chart=name), {"range": "1h"}).content)
        traces = answer["figure"]["data"]
        assert answer["range"] == "1h"
        assert answer["table"]["columns"] == ["time", *(one["name"] for one in traces)]
        assert all(len(one["x"]) == len(one["y"]) for one in traces)


def test_a_charts_csv_leaves_what_was_not_measured_empty(endpoint: Endpoint) -> None:
    answer = as_(make.user("alice")).get(url("chart-csv", endpoint, chart="latency"))
    rows = list(csv.reader(io.StringIO(answer.content.decode())))
    assert rows[0] == ["time", "p50", "p95", "p99"]
    assert rows[1][1:] == ["", "", ""]
    assert f'filename="{endpoint.name}-latency-15m.csv"' in answer["Content-Disposition"]


def test_an_unknown_chart_names_those_there_are(endpoint: Endpoint) -> None:
    answer = as_(make.user("alice")).get(url("chart", endpoint, chart="mood"))
    assert answer.status_code == 404


def test_an_unknown_range_shows_the_default_one(endpoint: Endpoint) -> None:
    answer = as_(make.user("alice")).get(url("chart", endpoint, chart="cpu"), {"range": "7 years"})
    assert strict(answer.content)["range"] == "15m"


def test_only_the_charts_asked_for_are_drawn(endpoint: Endpoint) -> None:
    page = as_(make.user("alice")).get(url("charts", endpoint), {"only": "latency,cost"}).content.decode()
    assert page.count("data-chart=") == 2


def test_older_lines_come_on_demand(endpoint: Endpoint) -> None:
    measured.lines(endpoint.instances.get(), 30)
    alice = as_(make.user("alice"))

    def numbers(**query: Any) -> list[int]:
        return [line["seq"] for line in strict(alice.get(url("logs", endpoint), query).content)["lines"]]

    assert numbers(limit=5) == [26, 27, 28, 29, 30]
    assert numbers(before=26, limit=5) == [21, 22, 23, 24, 25]
    assert numbers(after=28) == [29, 30]
    assert numbers(before=1) == []
    assert numbers(limit="many", after="-3") == list(range(1, 31))
    assert numbers(q="LINE 7", limit=100) == [7]


def test_lost_lines_are_marked_wherever_the_log_is_read(endpoint: Endpoint) -> None:
    instance = endpoint.instances.get()
    measured.lines(instance, 3, gaps=[2])
    alice = as_(make.user("alice"))
    lines = strict(alice.get(url("logs", endpoint), {"limit": 9}).content)["lines"]
    assert [line.get("seq", "gap") for line in lines] == [1, "gap", 2, 3]
    assert "Lines are missing here." in alice.get(url("logs", endpoint)).content.decode()
    text = b"".join(alice.get(url("log-download", endpoint))).decode()
    assert text.count("--- Lines are missing here. ---") == 1


def test_a_download_holds_every_line_and_has_a_name(endpoint: Endpoint) -> None:
    instance = endpoint.instances.get()
    measured.lines(instance, 2500, text="größer ≠ länger", gaps=[7])
    answer = as_(make.user("alice")).get(url("log-download", endpoint))
    sent = answer.content
    assert sent.decode().count("\n") == 2501
    assert f'filename="{instance.name}.log"' in answer["Content-Disposition"]
    assert answer["Content-Length"] == str(len(sent))
    none = as_(make.user("alice")).get(url("log-download", endpoint), {"q": "nowhere"})
    assert (none["Content-Length"], none.content) == ("0", b"")


def test_the_log_of_an_ended_instance_stays_readable(endpoint: Endpoint) -> None:
    old = make.instance(endpoint, state="failed", ended_at=timezone.now(), at=timezone.now() - timedelta(hours=1))
    measured.lines(old, 2, text="last words")
    page = as_(make.user("alice")).get(url("logs", endpoint), {"instance": old.name}).content.decode()
    assert "last words 2" in page
    assert "data-follow" not in page


def test_nobody_reads_another_endpoints_instance(endpoint: Endpoint) -> None:
    other = make.endpoint(endpoint.project, ready=1).instances.get()
    answer = as_(make.user("alice")).get(url("logs", endpoint), {"instance": other.name})
    assert answer.status_code == 404


def test_a_script_in_a_log_line_is_only_text(endpoint: Endpoint) -> None:
    measured.lines(endpoint.instances.get(), 1, text="<script>alert(1)</script>")
    assert "<script>alert" not in as_(make.user("alice")).get(url("logs", endpoint)).content.decode()


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize(("name", "queries"), [("kpis", 11), ("charts", 21)])
def test_a_busy_endpoints_page_takes_no_more_queries_than_an_idle_ones(
    name: str, queries: int, busy: bool, endpoint: Endpoint, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    now = timezone.now().replace(second=0, microsecond=0)
    if busy:
        for instance in [make.instance(endpoint) for _ in range(8)]:
            for slot in range(10):
                Sample.objects.create(
                    endpoint=endpoint, instance=instance, at=now - timedelta(seconds=15 * slot), cpu_millis=900
                )
        for minute in range(14):
            measured.traffic(endpoint, now - timedelta(minutes=minute), 10, 20)
    alice = as_(make.user("alice"))
    with django_assert_max_num_queries(queries):
        assert alice.get(url(name, endpoint), headers={"HX-Request": "true"}).status_code == 200


def test_the_running_minute_begins_at_a_whole_minute() -> None:
    assert minute_of(measured.AT) % 60 == 0
