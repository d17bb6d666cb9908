"""The Scaling tab: why there are so many, what the policy may cost before it does, and who may change it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.roles import Role
from billing.models import Price, Unit
from endpoints.models import Endpoint
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture
def endpoint() -> Endpoint:
    """One that serves with one instance, at ₹10 an hour."""
    made = make.endpoint(ready=1, name="demo")
    kind = made.revisions.latest("number").instance_type
    Price.objects.create(
        unit=Unit.INSTANCE_HOUR,
        instance_type=kind,
        amount=Decimal(10),
        valid_from=timezone.now() - timedelta(days=1),
    )
    return made


@pytest.fixture
def alice(client: Client, endpoint: Endpoint) -> Client:
    client.force_login(make.user("alice"))
    return client


def url(endpoint: Endpoint, verb: str = "") -> str:
    return f"/projects/{endpoint.project.slug}/endpoints/demo/{verb}"


def policy(endpoint: Endpoint, **changes: Any) -> dict[str, Any]:
    """The form as its page sends it, with some fields typed over."""
    was = {f"was_{name}": value for name, value in endpoint.policy.items()}
    return was | endpoint.policy | changes


def post(client: Client, endpoint: Endpoint, **changes: Any) -> Any:
    return client.post(url(endpoint, "scaling/"), policy(endpoint, **changes))


# ── what is shown ────────────────────────────────────────────────────────────────────────────────
def test_the_tab_says_what_is_wanted_and_why_with_the_inputs(alice: Client, endpoint: Endpoint) -> None:
    endpoint.autoscale(3, why="wanted 3: 27 in flight / target 10; 1 ready", generation=endpoint.generation)
    endpoint.update_scaling(by=None, scale_down_delay=600)
    page = alice.get(url(endpoint), {"tab": "scaling"}).content.decode()
    assert "wanted 3: 27 in flight / target 10; 1 ready" in page.partition("Last decision")[2][:200]
    assert "scale down delay 300 → 600" in page.partition("Decisions")[2]
    assert "Between 1 and 10, as the load asks." in page
    assert "₹73,000.00 a month" in page  # ten of ₹10, 730 hours


@pytest.mark.parametrize("part", ["scaling_now", "scaling_decisions", "policy", "emergency_cost"])
def test_each_fragment_comes_alone(alice: Client, endpoint: Endpoint, part: str) -> None:
    fragment = alice.get(url(endpoint), {"part": part})
    assert fragment.status_code == 200
    assert b"<html" not in fragment.content
    assert b"<" in fragment.content


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"desired": "stopped"}, "nothing is decided"),
        ({"max_instances": 1}, "Always 1: min and max instances are equal"),
        ({"warm_spare": 2}, "with 2 above what it needs"),
        ({"min_instances": 0}, "without a request for 300 s it sleeps"),
        ({"min_instances": 0, "wanted": 0}, "nothing is billed until the next request"),
        ({"halted_at": timezone.now()}, "nothing more is started"),
    ],
)
def test_what_moves_the_number_is_said_as_it_is(
    alice: Client, endpoint: Endpoint, columns: dict[str, Any], said: str
) -> None:
    Endpoint.objects.filter(pk=endpoint.pk).update(**columns)
    assert said in alice.get(url(endpoint), {"part": "scaling_now"}).content.decode()


def test_who_may_not_operate_sees_values_and_no_form(client: Client, endpoint: Endpoint) -> None:
    client.force_login(make.member(endpoint.project, "vera", Role.VIEWER))
    endpoint.emergency_scale(by=None)
    page = client.get(url(endpoint), {"tab": "scaling"}).content.decode()
    assert "Scale-down delay" in page
    assert 'name="scale_down_delay"' not in page
    assert 'data-verb="' not in page
    assert "At least 10 instances until" in page
    assert post(client, endpoint, max_instances=2).status_code == 403


# ── the policy ───────────────────────────────────────────────────────────────────────────────────
def test_a_policy_that_costs_no_more_holds_at_once_without_a_deployment(alice: Client, endpoint: Endpoint) -> None:
    answer = post(alice, endpoint, max_instances=8, target_concurrency=20)
    assert (answer.status_code, answer["Location"]) == (302, url(endpoint) + "?tab=scaling")
    deployments = endpoint.deployments.count()
    endpoint.refresh_from_db()
    assert (endpoint.max_instances, endpoint.target_concurrency) == (8, 20)
    assert endpoint.deployments.count() == deployments
    event = endpoint.events.first()
    assert event
    assert event.who == "alice"


def test_what_may_cost_more_is_shown_before_it_is_done(alice: Client, endpoint: Endpoint) -> None:
    page = post(alice, endpoint, max_instances=50, warm_spare=2)
    text = page.content.decode()
    assert page.status_code == 200
    assert "This may cost more." in text
    assert "Max instances 10 → 50".lower() in text
    assert "10 → <strong>50</strong> instances: ₹73,000.00 → <strong>₹365,000.00</strong> a month" in text
    assert "1 → <strong>2</strong> instances: ₹7,300.00 → <strong>₹14,600.00</strong> a month" in text
    endpoint.refresh_from_db()
    assert endpoint.max_instances == 10
    assert 'name="seen" value="2-50"' in text
    post(alice, endpoint, max_instances=50, warm_spare=2, seen="2-50")
    endpoint.refresh_from_db()
    assert (endpoint.max_instances, endpoint.warm_spare) == (50, 2)


def test_a_cost_that_was_seen_is_not_consent_to_a_greater_one(alice: Client, endpoint: Endpoint) -> None:
    assert b"This may cost more." in post(alice, endpoint, max_instances=60, seen="1-50").content
    endpoint.refresh_from_db()
    assert endpoint.max_instances == 10


def test_a_preview_says_the_cost_and_changes_nothing(alice: Client, endpoint: Endpoint) -> None:
    fragment = post(alice, endpoint, max_instances=50, go="preview").content.decode()
    assert "₹365,000.00" in fragment
    assert "<html" not in fragment
    assert (
        "once every field is in its range"
        in post(alice, endpoint, max_instances=500, go="preview").content.decode()
    )
    endpoint.refresh_from_db()
    assert endpoint.max_instances == 10


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        ({"max_instances": 101}, "max_instances"),
        ({"min_instances": 5, "max_instances": 3}, "max_instances"),
        ({"scale_up_threshold": "high"}, "scale_up_threshold"),
        ({"scale_down_delay": ""}, "scale_down_delay"),
        ({"warm_spare": 10, "max_instances": 10}, "warm_spare"),
    ],
)
def test_what_is_wrong_stands_at_its_field_and_keeps_what_was_typed(
    alice: Client, endpoint: Endpoint, typed: dict[str, Any], field: str
) -> None:
    page = post(alice, endpoint, **typed)
    text = page.content.decode()
    assert page.status_code == 422
    assert f'id="id_{field}_error"' in text
    assert f'<a href="{url(endpoint)}?tab=scaling" aria-current="page">' in text
    assert all(f'value="{value}"' in text for value in typed.values() if value != "")
    endpoint.refresh_from_db()
    assert endpoint.policy == {
        "min_instances": 1, "max_instances": 10, "target_concurrency": 10,
        "scale_up_threshold": 80, "scale_down_delay": 300, "warm_spare": 0,
    }  # fmt: skip


def test_what_another_tab_changed_meanwhile_stays(alice: Client, endpoint: Endpoint) -> None:
    stale = policy(endpoint, target_concurrency=20)
    endpoint.update_scaling(by=None, max_instances=5)
    alice.post(url(endpoint, "scaling/"), stale)
    endpoint.refresh_from_db()
    assert (endpoint.max_instances, endpoint.target_concurrency) == (5, 20)


def test_a_conflict_with_what_another_tab_changed_is_told_at_the_field(alice: Client, endpoint: Endpoint) -> None:
    stale = policy(endpoint, min_instances=6, seen="6-5")
    endpoint.update_scaling(by=None, max_instances=5)
    page = alice.post(url(endpoint, "scaling/"), stale)
    assert page.status_code == 422
    assert "5 is less than 6" in page.content.decode()


def test_a_smaller_maximum_can_be_set_while_an_emergency_holds_more(alice: Client, endpoint: Endpoint) -> None:
    endpoint.emergency_scale(by=None)
    assert post(alice, endpoint, max_instances=4).status_code == 302
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.held(timezone.now())) == (4, 4)


# ── emergencies ──────────────────────────────────────────────────────────────────────────────────
def test_the_dialog_says_what_an_emergency_costs(alice: Client, endpoint: Endpoint) -> None:
    page = alice.get(url(endpoint)).content.decode().partition('id="emergency"')[2]
    assert "₹100.00/h" in page
    assert "₹73,000.00 if nobody took them back" in page
    fragment = alice.get(url(endpoint), {"part": "emergency_cost", "instances": "4"}).content.decode()
    assert "₹40.00/h" in fragment
    assert alice.get(url(endpoint), {"part": "emergency_cost", "instances": "<b>"}).status_code == 200


def test_a_form_scales_in_an_emergency_and_ends_it(alice: Client, endpoint: Endpoint) -> None:
    page = alice.post(url(endpoint, "emergency/"), {"instances": "4", "minutes": "15"}, follow=True)
    assert b"Scaling to 4 instances at once, held for 15 minutes." in page.content
    assert b"At least 4 instances until" in page.content
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.held(timezone.now())) == (4, 4)
    page = alice.post(url(endpoint, "end-emergency/"), follow=True)
    assert b"The emergency was ended." in page.content
    assert b"At least 4 instances until" not in page.content


@pytest.mark.parametrize("typed", [{"instances": "11"}, {"instances": "many"}, {"minutes": "7"}])
def test_an_emergency_out_of_range_changes_nothing_and_says_why(
    alice: Client, endpoint: Endpoint, typed: dict[str, str]
) -> None:
    page = alice.post(url(endpoint, "emergency/"), {"instances": "4", "minutes": "15"} | typed, follow=True)
    assert any(said in page.content for said in (b"Choose from 1", b"whole number", b"Hold them for 15, 60, 240"))
    endpoint.refresh_from_db()
    assert endpoint.wanted == 1


def test_a_past_emergency_is_not_shown(alice: Client, endpoint: Endpoint) -> None:
    endpoint.emergency_scale(by=None, at=timezone.now() - timedelta(minutes=61))
    assert b"Emergency." not in alice.get(url(endpoint)).content
