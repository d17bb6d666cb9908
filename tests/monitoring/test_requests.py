"""Remembered requests: what the page and the API find, say and leave out."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from accounts.roles import Role
from endpoints.models import Endpoint, Revision
from monitoring import passports, retention
from monitoring.models import RequestRecord
from tests import make
from tests.monitoring import measured

pytestmark = pytest.mark.django_db


@pytest.fixture
def endpoint() -> Endpoint:
    return make.endpoint(ready=1, name="tiny")


@pytest.fixture
def alice(endpoint: Endpoint) -> Client:
    client = Client()
    client.force_login(make.user("alice"))
    return client


def address(of: Endpoint, name: str = "requests", **more: Any) -> str:
    return reverse(f"monitoring:{name}", kwargs={"project": of.project.slug, "name": of.name, **more})


def shown(client: Client, path: str, **query: str) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200
    return answer.content.decode()


class Caller:
    def __init__(self, of: Endpoint) -> None:
        self.root = f"/api/v1/endpoints/{of.name}/requests"
        self.headers = {"Authorization": f"Bearer {make.key(of.project, 'manage')[1]}"}

    def __call__(self, path: str = "", **query: Any) -> Any:
        return Client().get(self.root + path, query, headers=self.headers)


@pytest.fixture
def call(endpoint: Endpoint) -> Caller:
    return Caller(endpoint)


# ── where the time went ──────────────────────────────────────────────────────────────────────────
def stretches(record: RequestRecord) -> list[tuple[str, int]]:
    return [(part.name, part.us) for part in passports.parts(record)]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"queue_us": 200, "connect_us": 50, "first_byte_us": 400, "ttft_us": 450, "total_us": 900},
            [("Queue", 200), ("Connection", 50), ("First byte", 150), ("First token", 50), ("Generation", 450)],
        ),
        (
            {"queue_us": 800, "cold_start": True, "first_byte_us": 850, "ttft_us": None, "total_us": 900},
            [("Cold start", 800), ("First byte", 50), ("Answer", 50)],
        ),
        ({"queue_us": 700, "first_byte_us": None, "total_us": 700}, [("Queue", 700)]),
        ({"first_byte_us": None, "total_us": 30}, [("No answer", 30)]),
        # clocks that disagree make no negative stretch and no sum that is another than the whole
        (
            {"queue_us": 500, "first_byte_us": 300, "ttft_us": 200, "total_us": 600},
            [("Queue", 500), ("Generation", 100)],
        ),
        ({"queue_us": 900, "first_byte_us": 950, "total_us": 600}, [("Queue", 600)]),
        ({"first_byte_us": None, "total_us": 0}, []),
    ],
)  # fmt: skip
def test_the_stretches_of_a_requests_time_add_up_to_the_whole(
    facts: dict[str, Any], expected: list[tuple[str, int]]
) -> None:
    record = RequestRecord(**{"ttft_us": None, "status": 200} | facts)
    assert stretches(record) == expected
    assert sum(us for _, us in expected) == record.total_us


# ── the page ─────────────────────────────────────────────────────────────────────────────────────
def test_a_page_of_its_own_and_a_part_of_the_endpoints_page(endpoint: Endpoint, alice: Client) -> None:
    measured.request(endpoint, "r-77")
    whole = shown(alice, address(endpoint))
    part = alice.get(address(endpoint), headers={"hx-request": "true"}).content.decode()
    assert "r-77" in whole
    assert "r-77" in part
    assert ("<html" in whole, "<html" in part) == (True, False)
    detail = reverse("endpoints:detail", kwargs={"project": endpoint.project.slug, "name": "tiny"})
    tab = shown(alice, detail, tab="requests", kept="errors", request="r-7")
    assert f'hx-get="{address(endpoint)}?tab=requests&amp;kept=errors&amp;request=r-7"' in tab


def test_filters_narrow_and_stay_in_the_form(endpoint: Endpoint, alice: Client) -> None:
    measured.request(endpoint, "good")
    measured.request(endpoint, "late", slow=True, sample=False)
    measured.request(endpoint, "lost", status=502, code="upstream_lost", sample=False)
    measured.request(endpoint, "left", status=499, sample=False)
    measured.request(endpoint, "bad", status=404, sample=False)

    def ids(**query: str) -> set[str]:
        page = shown(alice, address(endpoint), **query)
        return {name for name in ("good", "late", "lost", "left", "bad") if f'title="{name}"' in page}

    assert ids() == {"good", "late", "lost", "left", "bad"}
    assert ids(kept="errors") == {"lost", "left", "bad"}
    assert ids(kept="slowest") == {"late"}
    assert ids(kept="sample") == {"good"}
    assert ids(status="4xx") == {"bad"}
    assert ids(status="499") == {"left"}
    assert ids(status="5xx", kept="errors") == {"lost"}
    assert ids(status="502") == {"lost"}
    assert ids(request="LA") == {"late"}
    assert ids(status="nonsense") == set()
    page = shown(alice, address(endpoint), kept="slowest", request="la")
    assert '<option value="slowest" selected>' in page
    assert 'value="la"' in page


def test_what_is_not_remembered_is_said_to_be_so_with_the_reason(endpoint: Endpoint, alice: Client) -> None:
    empty = shown(alice, address(endpoint))
    assert "No requests yet" in empty
    page = shown(alice, address(endpoint), request="r-404")
    assert "Not remembered" in page
    assert "one in 1,000" in page
    assert "kept for 7 days" in page


def test_one_request_tells_where_its_time_went_and_what_it_counts_as(endpoint: Endpoint, alice: Client) -> None:
    key, _ = make.key(endpoint.project)
    instance = endpoint.instances.get()
    times = {"queue_us": 100_000, "cold_start": True, "first_byte_us": 190_000, "ttft_us": 195_000}
    record = measured.request(endpoint, "r-9", key=key, instance=instance.name, estimated=True, **times)
    page = shown(alice, address(endpoint, "request", record=record.pk))
    for text in (
        "Cold start 100 ms, Connection 0.4 ms", "Generation", "305 ms", 'data-copy="r-9"', key.prefix,
        "1,200 read", "estimated", "2 KiB came",
        "share of the time its instances ran", f"instance={instance.name}",
    ):  # fmt: skip
        assert text in page, text


def test_an_error_says_whose_it_was(endpoint: Endpoint, alice: Client) -> None:
    def said(**facts: Any) -> str:
        record = measured.request(endpoint, **facts)
        return shown(alice, address(endpoint, "request", record=record.pk))

    assert "The gateway refused it." in said(status=429, code="queue_full", instance="", first_byte_us=None)
    assert "The instance gave no whole answer." in said(status=502, code="upstream_lost")
    assert "The engine answered with this error." in said(status=400)
    assert "The caller left" in said(status=499)


def test_a_revision_that_is_paid_by_the_request_says_so(endpoint: Endpoint, alice: Client) -> None:
    revision = endpoint.revisions.get()
    spec = revision.spec
    spec["scaling"]["billing_model"] = "per_request"
    Revision.objects.filter(pk=revision.pk).update(spec=spec)
    record = measured.request(endpoint)
    assert "Per request: it counts as one" in shown(alice, address(endpoint, "request", record=record.pk))


def test_what_a_caller_sent_is_only_text(endpoint: Endpoint, alice: Client) -> None:
    record = measured.request(endpoint, path="/<script>alert(1)</script>", method="<b>")
    for path in (address(endpoint), address(endpoint, "request", record=record.pk)):
        assert "<script>alert" not in shown(alice, path)
        assert "<b>" not in shown(alice, path)


def test_it_takes_the_right_to_read_logs_and_the_right_endpoint(endpoint: Endpoint, alice: Client) -> None:
    record = measured.request(endpoint)
    other = make.endpoint(endpoint.project, ready=1, name="other")
    assert alice.get(address(other, "request", record=record.pk)).status_code == 404
    assert alice.get(address(endpoint, "request", record=uuid.uuid4())).status_code == 404
    bob = Client()
    bob.force_login(make.member(endpoint.project, "bob", Role.BILLING))
    for path in (address(endpoint), address(endpoint, "request", record=record.pk)):
        assert bob.get(path).status_code == 403


def test_a_long_list_has_pages_and_takes_no_more_queries_than_a_short_one(
    endpoint: Endpoint, alice: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    key, _ = make.key(endpoint.project)
    for number in range(60):
        measured.request(endpoint, f"r-{number:02}", key=key, at=measured.AT + timedelta(seconds=number))
    with django_assert_max_num_queries(12):
        page = shown(alice, address(endpoint), kept="sample")
    assert "r-59" in page
    assert "r-09" not in page
    assert "kept=sample&amp;page=2" in page
    assert "r-09" in shown(alice, address(endpoint), kept="sample", page="2")


# ── the API ──────────────────────────────────────────────────────────────────────────────────────
def test_a_program_finds_a_request_by_the_id_it_was_told(endpoint: Endpoint, call: Caller) -> None:
    measured.request(endpoint, "twice", at=measured.AT, status=500)
    key, _ = make.key(endpoint.project)
    record = measured.request(
        endpoint, "twice", key=key, status=503, code="queue_timeout", slow=True, ttft_us=None
    )
    found = call("/twice").json()
    assert (found["id"], found["status"], found["code"]) == (str(record.pk), 503, "queue_timeout")
    assert found["remembered_as"] == ["errors", "slowest", "sample"]
    assert (found["revision"], found["key"], found["cost_basis"]) == (1, key.prefix, "hourly")
    assert (found["first_byte_ms"], found["ttft_ms"], found["total_ms"]) == (90.0, None, 500.0)
    assert sum(part["ms"] for part in found["parts"]) == pytest.approx(found["total_ms"])


def test_a_program_is_told_why_a_request_may_be_missing(call: Caller) -> None:
    answer = call("/r-404")
    assert answer.status_code == 404
    assert "not remembered" in answer.json()["error"]["message"]
    assert "one in 1,000" in answer.json()["error"]["message"]


def test_a_program_reads_all_of_them_once_by_cursor(endpoint: Endpoint, call: Caller) -> None:
    for number in range(7):  # all of one moment: only their own ids tell them apart
        measured.request(endpoint, f"r-{number}", at=measured.AT)
    seen, cursor = [], ""
    while True:
        page = call("", limit=3, **({"cursor": cursor} if cursor else {})).json()
        seen += [item["request_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert sorted(seen) == [f"r-{number}" for number in range(7)]


@pytest.mark.parametrize(
    "query", [{"kept": "all"}, {"status": "5"}, {"limit": 0}, {"sort": "at"}, {"cursor": str(uuid.uuid4())}]
)
def test_a_wrong_question_is_refused_at_its_field(call: Caller, query: dict[str, Any]) -> None:
    answer = call("", **query)
    assert answer.status_code == 422
    assert set(answer.json()["error"]["fields"]) == set(query)


# ── their end ────────────────────────────────────────────────────────────────────────────────────
def test_they_go_after_the_days_that_the_installation_keeps_them(
    endpoint: Endpoint, settings: LazySettings
) -> None:
    now = timezone.now()
    for days in (1, 3, 9):
        measured.request(endpoint, f"r-{days}", at=now - timedelta(days=days))
    settings.REQUEST_RECORD_DAYS = 7
    assert retention.expire(at=now)["requests"] == 1
    settings.REQUEST_RECORD_DAYS = 2
    assert retention.expire(at=now)["requests"] == 1
    assert RequestRecord.objects.get().request_id == "r-1"
