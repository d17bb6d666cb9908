"""More instances at once, for a stated time: who may, how many, what ends it, and what a program is told."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import ApiKey
from accounts.refused import Refused
from endpoints.models import Endpoint
from tests import make

pytestmark = pytest.mark.django_db


def call(endpoint: Endpoint, method: str = "post", body: Any = None) -> Any:
    _, secret = ApiKey.issue(endpoint.project, name="ci", scopes=["manage"], by=make.user("alice"))
    path = f"/api/v1/endpoints/{endpoint.name}/emergency-scale"
    headers = {"Authorization": f"Bearer {secret}"}
    return Client().generic(method.upper(), path, json.dumps(body or {}), "application/json", headers=headers)


def test_it_wants_the_maximum_at_once_and_says_who_asked_and_for_how_long() -> None:
    endpoint, at = make.endpoint(ready=1), timezone.now()
    endpoint.emergency_scale(by=make.user("bob"), at=at)
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.held(at)) == (10, 10)
    assert (endpoint.held(at + timedelta(minutes=59)), endpoint.held(at + timedelta(minutes=60))) == (10, 0)
    event = endpoint.events.first()
    assert event
    assert (event.kind, event.who, event.before, event.after) == ("endpoint.emergency", "bob", "1", "10")
    assert event.message == "Emergency: 10 instances at once instead of 1, held for 60 minutes."


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"instances": 11}, "instances"), ({"instances": 2}, "instances"), ({"minutes": 30}, "minutes")],
)
def test_it_never_takes_instances_nor_passes_the_maximum(asked: dict[str, int], field: str) -> None:
    endpoint = make.endpoint(ready=3)
    with pytest.raises(Refused) as refused:
        endpoint.emergency_scale(**asked, by=None)  # type: ignore[arg-type]
    assert refused.value.field == field
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.emergency_until) == (3, None)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"desired": "stopped"}, "stopped"),
        ({"desired": "deleted"}, "deleted"),
        ({"max_instances": 1}, "always has 1"),
    ],
)
def test_it_is_refused_where_it_could_do_nothing(columns: dict[str, Any], why: str) -> None:
    endpoint = make.endpoint(ready=1, **columns)
    with pytest.raises(Refused, match=why):
        endpoint.emergency_scale(by=None)


def test_ending_it_leaves_the_number_to_automatic_scaling() -> None:
    endpoint = make.endpoint(ready=1)
    endpoint.emergency_scale(4, by=None)
    assert endpoint.end_emergency(by=make.user("bob"))
    assert (endpoint.wanted, endpoint.held(timezone.now())) == (4, 0)
    event = endpoint.events.first()
    assert event
    assert (event.kind, event.who) == ("endpoint.emergency_ended", "bob")
    assert endpoint.end_emergency(by=None) is False


def test_fewer_by_hand_end_it_and_more_do_not() -> None:
    endpoint, at = make.endpoint(ready=1), timezone.now()
    endpoint.emergency_scale(4, by=None)
    endpoint.scale(6, by=None)
    assert endpoint.held(at) == 4
    endpoint.scale(2, by=None)
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.held(at)) == (2, 0)
    event = endpoint.events.first()
    assert event
    assert event.message.endswith("That ends the emergency.")


def test_a_stop_ends_it_and_its_number_does_not_come_back_with_a_start() -> None:
    endpoint = make.endpoint(ready=1)
    endpoint.emergency_scale(by=None)
    endpoint.stop(by=None)
    endpoint.start(by=None)
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.held(timezone.now())) == (1, 0)


def test_a_smaller_maximum_holds_no_more_than_that() -> None:
    endpoint = make.endpoint(ready=1)
    endpoint.emergency_scale(by=None)
    endpoint.update_scaling(by=None, max_instances=5)
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.held(timezone.now())) == (5, 5)


# ── REST ─────────────────────────────────────────────────────────────────────────────────────────
def test_a_program_scales_in_an_emergency_and_ends_it() -> None:
    endpoint = make.endpoint(ready=1)
    answer = call(endpoint, body={"instances": 4, "minutes": 15})
    assert answer.status_code == 200
    assert answer.json()["instances"]["wanted"] == 4
    assert answer.json()["emergency"]["instances"] == 4
    event = endpoint.events.first()
    assert event
    assert event.who == "key ci"
    ended = call(endpoint, "delete")
    assert (ended.status_code, ended.json()["emergency"]) == (200, None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"instances": 11}, "instances"),
        ({"instances": "4"}, "instances"),
        ({"minutes": 1}, "minutes"),
        ({"force": True}, "force"),
    ],
)
def test_a_program_is_told_at_the_field_what_is_wrong(body: dict[str, Any], field: str) -> None:
    endpoint = make.endpoint(ready=1)
    answer = call(endpoint, body=body)
    assert answer.status_code == 422
    assert list(answer.json()["error"]["fields"]) == [field]
    endpoint.refresh_from_db()
    assert endpoint.wanted == 1
