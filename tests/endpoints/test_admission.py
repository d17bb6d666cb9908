"""Traffic rules of an endpoint: changed at once, by whom is told, and known to every gateway."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from accounts.models import ApiKey
from accounts.refused import Refused
from endpoints.models import Admission, Endpoint
from gateway import facts
from gateway.routes import DEFAULT_ADMISSION, Quotas
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture
def endpoint() -> Endpoint:
    return make.endpoint(ready=1, name="demo")


def test_an_endpoint_begins_with_the_gateways_own_defaults(endpoint: Endpoint) -> None:
    rules = endpoint.rules
    assert (rules.queue_limit, rules.queue_seconds, rules.wake_seconds) == (
        DEFAULT_ADMISSION.queue_limit, DEFAULT_ADMISSION.queue_seconds, DEFAULT_ADMISSION.wake_seconds,
    )  # fmt: skip
    assert facts.table().routes["demo"].admission == DEFAULT_ADMISSION
    assert not Admission.objects.exists()


def test_a_change_says_what_from_what_to_what_and_by_whom(endpoint: Endpoint) -> None:
    alice = make.user("alice")
    assert endpoint.update_admission(by=alice, requests_per_minute=6000, queue_limit=10)
    assert endpoint.update_admission(by=alice, requests_per_minute=None, origins=["https://App.example/"])
    later, first = endpoint.events.filter(kind="endpoint.admission_updated")
    assert (first.who, first.message) == (
        "alice", "Traffic rules: requests a minute no limit → 6,000, requests in the queue 100 → 10.",
    )  # fmt: skip
    assert later.message == (
        "Traffic rules: requests a minute 6,000 → no limit, browser origins none → https://app.example."
    )


def test_the_gateway_learns_all_of_them(endpoint: Endpoint) -> None:
    stamp = facts.stamp()
    endpoint.update_admission(
        by=None, tokens_per_minute=900, concurrent_requests=3, queue_seconds=0, wake_seconds=60,
        origins=["http://localhost:3000"], max_response_mb=2,
    )  # fmt: skip
    assert facts.stamp() != stamp
    known = facts.table().routes["demo"].admission
    assert known.quotas == Quotas(None, 900, 3)
    assert (known.queue_limit, known.queue_seconds, known.wake_seconds) == (100, 0, 60)
    assert (known.origins, known.max_response_bytes) == (frozenset({b"http://localhost:3000"}), 2 * 2**20)
    stamp = facts.stamp()
    endpoint.update_scaling(by=None, target_concurrency=3)
    assert facts.stamp() != stamp


def test_the_same_rules_again_write_nothing(endpoint: Endpoint) -> None:
    assert endpoint.update_admission(by=None, concurrent_requests=3)
    events = endpoint.events.count()
    assert not endpoint.update_admission(by=None, concurrent_requests=3, queue_limit=100, origins=[])
    assert endpoint.events.count() == events


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"requests_per_minute": 0}, "must be from 1 to 10,000,000, or nothing for no limit; you gave 0"),
        ({"tokens_per_minute": 10**10}, "you gave 10,000,000,000"),
        ({"queue_limit": 10_001}, "Requests in the queue must be from 0 to 10,000; you gave 10,001"),
        ({"queue_seconds": None}, "you gave nothing"),
        ({"wake_seconds": 4}, "from 5 to 3,600"),
        ({"origins": ["https://app.example", "app.example"]}, "“app.example” is no origin"),
        ({"origins": ["https://*.example"]}, "is no origin"),
        ({"origins": ["https://app.example/path"]}, "is no origin"),
        ({"origins": ["https://me@app.example"]}, "is no origin"),
        ({"origins": ["ftp://app.example"]}, "is no origin"),
        ({"origins": ["http://app.example:99999"]}, "is no origin"),
        ({"origins": ["null"]}, "is no origin"),
        ({"origins": [f"https://{n}.example" for n in range(21)]}, "at most 20 browser origins"),
    ],
)
def test_what_is_out_of_range_is_refused_at_its_field_and_changes_nothing(
    endpoint: Endpoint, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(Refused) as refused:
        endpoint.update_admission(by=None, **{"max_response_mb": 5} | changes)
    assert told in str(refused.value)
    assert refused.value.field == next(iter(changes))
    assert not Admission.objects.exists()


def test_origins_are_kept_as_a_browser_names_them(endpoint: Endpoint) -> None:
    given = ["https://A.example:443", "https://a.example", "http://[::1]:8000", " http://x:80 "]
    endpoint.update_admission(by=None, origins=given)
    assert endpoint.rules.origins == ["https://a.example", "http://[::1]:8000", "http://x"]


def test_the_rules_of_a_deleted_endpoint_stay(endpoint: Endpoint) -> None:
    endpoint.delete_endpoint(by=None)
    with pytest.raises(Refused, match="being deleted"):
        endpoint.update_admission(by=None, queue_limit=3)


# ── REST ─────────────────────────────────────────────────────────────────────────────────────────
def call(endpoint: Endpoint, body: Any = None) -> Any:
    _, secret = ApiKey.issue(endpoint.project, name="ci", scopes=["manage"], by=make.user("alice"))
    url, headers = f"/api/v1/endpoints/{endpoint.name}/admission", {"Authorization": f"Bearer {secret}"}
    if body is None:
        return Client().get(url, headers=headers)
    return Client().patch(url, json.dumps(body), content_type="application/json", headers=headers)


def test_a_program_reads_and_changes_them(endpoint: Endpoint) -> None:
    rules: dict[str, Any] = {
        "requests_per_minute": None, "tokens_per_minute": None, "concurrent_requests": None, "queue_limit": 100,
        "queue_seconds": 30, "wake_seconds": 300, "origins": [], "max_response_mb": None,
    }  # fmt: skip
    assert call(endpoint).json() == rules
    rules |= {"requests_per_minute": 60, "origins": ["https://app.example"]}
    assert call(endpoint, {"requests_per_minute": 60, "origins": ["https://APP.example"]}).json() == rules
    assert call(endpoint, {"queue_seconds": 5}).json() == rules | {"queue_seconds": 5}
    assert call(endpoint, {"requests_per_minute": None}).json()["requests_per_minute"] is None
    event = endpoint.events.first()
    assert event
    assert (event.kind, event.who) == ("endpoint.admission_updated", "key ci")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"queue_limit": 10_001}, "queue_limit"),
        ({"queue_limit": None}, "queue_limit"),
        ({"requests_per_minute": "60"}, "requests_per_minute"),
        ({"requests_per_minute": True}, "requests_per_minute"),
        ({"origins": ["*"]}, "origins"),
        ({"origins": "https://app.example"}, "origins"),
        ({"rpm": 60}, "rpm"),
    ],
)
def test_what_a_program_gets_wrong_is_told_at_its_field(endpoint: Endpoint, body: Any, field: str) -> None:
    answer = call(endpoint, body)
    assert answer.status_code == 422
    assert [name.partition(".")[0] for name in answer.json()["error"]["fields"]] == [field]
    assert not Admission.objects.exists()
