"""API keys: shown once, kept as a hash, revoked at once."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts import bell
from accounts.models import ApiKey, Membership, Project, User
from accounts.roles import Role
from tests import make

pytestmark = pytest.mark.django_db
KEYS = "/projects/alpha/keys/"


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def form(**changes: Any) -> dict[str, Any]:
    return {"request_id": str(uuid.uuid4()), "name": "shop", "scopes": ["inference"], "expiry": ""} | changes


def secret_in(answer: Any) -> str:
    return re.search(r"tir_[0-9a-f]{8}_[\w-]{40,}", answer.content.decode()).group()  # type: ignore[union-attr]


@pytest.fixture
def alice() -> User:
    return make.project().memberships.get().user


def test_a_new_key_is_shown_once_and_kept_as_a_hash(alice: User) -> None:
    client = as_(alice)
    shown = client.post(KEYS + "new/", form())
    secret = secret_in(shown)
    assert shown.status_code == 201
    assert "no-store" in shown["Cache-Control"]
    assert secret not in client.get(KEYS).content.decode()
    key = ApiKey.objects.matching(secret, timezone.now())
    assert key is not None
    assert key.prefix in client.get(KEYS).content.decode()
    with connection.cursor() as cursor:
        cursor.execute("SELECT accounts_apikey::text FROM accounts_apikey")
        assert secret.rpartition("_")[2] not in str(cursor.fetchall())


def test_sending_the_form_again_makes_no_second_key_and_shows_nothing(alice: User) -> None:
    client, same = as_(alice), form()
    secret = secret_in(client.post(KEYS + "new/", same))
    again = client.post(KEYS + "new/", same, follow=True)
    assert "That key was made already" in again.content.decode()
    assert secret not in again.content.decode()
    assert ApiKey.objects.count() == 1


def test_a_key_that_manages_takes_an_admin(alice: User) -> None:
    project = Project.objects.get()
    bob = make.member(project, "bob", Role.DEVELOPER)
    assert as_(bob).post(KEYS + "new/", form(scopes=["manage"])).status_code == 422
    assert as_(alice).post(KEYS + "new/", form(scopes=["manage"])).status_code == 201
    managing = ApiKey.objects.get()
    assert as_(bob).post(f"{KEYS}{managing.pk}/revoke/").status_code == 403
    managing.refresh_from_db()
    assert managing.state == "active"


def test_a_viewer_sees_names_and_makes_no_key(alice: User) -> None:
    project = Project.objects.get()
    key, _ = make.key(project, "inference")
    viewer = as_(make.member(project, "bob", Role.VIEWER))
    assert key.prefix in viewer.get(KEYS).content.decode()
    assert viewer.post(KEYS + "new/", form()).status_code == 403
    assert viewer.post(f"{KEYS}{key.pk}/revoke/").status_code == 403


@pytest.mark.parametrize(
    ("change", "field"),
    [({"name": ""}, "name"), ({"scopes": []}, "scopes"), ({"scopes": ["root"]}, "scopes"),
     ({"expiry": "date"}, "expires_on"), ({"expiry": "date", "expires_on": "2020-01-01"}, "expires_on"),
     ({"expiry": "never ever"}, "expiry"), ({"reach": "some"}, "endpoints"), ({"reach": "few"}, "reach"),
     ({"tokens_per_minute": "0"}, "tokens_per_minute"), ({"requests_per_minute": "1.5"}, "requests_per_minute"),
     ({"concurrent_requests": "100001"}, "concurrent_requests")],
)  # fmt: skip
def test_a_bad_form_says_at_the_field_what_to_mend(alice: User, change: dict[str, Any], field: str) -> None:
    answer = as_(alice).post(KEYS + "new/", form(**change))
    assert answer.status_code == 422
    assert f'id="id_{field}_error"' in answer.content.decode()
    assert not ApiKey.objects.exists()


def test_a_key_may_be_kept_to_endpoints_and_limits_and_the_list_says_so(alice: User) -> None:
    endpoint, client = make.endpoint(Project.objects.get(), name="tiny"), as_(alice)
    client.post(KEYS + "new/", form(reach="some", endpoints=[endpoint.pk], tokens_per_minute="5000"))
    key = ApiKey.objects.get()
    assert (key.endpoint_ids, key.tokens_per_minute, key.requests_per_minute) == ([endpoint.pk], 5000, None)
    page = client.get(KEYS).content.decode()
    assert "<code>tiny</code>" in page
    assert "5,000 tokens a minute" in page


def test_a_key_that_manages_cant_pretend_to_be_kept_to_endpoints(alice: User) -> None:
    endpoint = make.endpoint(Project.objects.get())
    both = form(scopes=["inference", "manage"], reach="some", endpoints=[endpoint.pk])
    answer = as_(alice).post(KEYS + "new/", both)
    assert answer.status_code == 422
    assert 'id="id_reach_error"' in answer.content.decode()


def test_a_last_day_counts_to_its_end_in_the_persons_zone(alice: User) -> None:
    User.objects.update(timezone="Asia/Kolkata")
    as_(alice).post(KEYS + "new/", form(expiry="date", expires_on="2031-03-01"))
    assert ApiKey.objects.get().expires_at == datetime(2031, 3, 1, 18, 30, tzinfo=UTC)


def test_an_expired_key_is_none() -> None:
    now = timezone.now()
    _, secret = make.key(make.project(), "inference", expires_at=now + timedelta(seconds=5))
    assert ApiKey.objects.matching(secret, now) is not None
    assert ApiKey.objects.matching(secret, now + timedelta(seconds=5)) is None


def test_a_revoked_key_is_none_at_once_and_the_gateways_hear_of_it(
    alice: User, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    rung = []
    monkeypatch.setattr(bell, "_publish_routes", lambda: rung.append("routes"))
    key, secret = make.key(Project.objects.get(), "inference")
    with django_capture_on_commit_callbacks(execute=True):
        as_(alice).post(f"{KEYS}{key.pk}/revoke/")
    assert ApiKey.objects.matching(secret, timezone.now()) is None
    assert rung == ["routes"]
    page = as_(alice).get(KEYS).content.decode()
    assert "Revoked the key “test”" in page


def test_a_key_of_another_project_is_not_reached_through_ones_own(alice: User) -> None:
    key, _ = make.key(make.project("Beta", make.user("charlie")), "inference")
    assert as_(alice).post(f"{KEYS}{key.pk}/revoke/").status_code == 404


def test_keys_of_the_playground_are_not_listed(alice: User) -> None:
    make.key(Project.objects.get(), "inference", purpose="playground")
    assert "No keys yet" in as_(alice).get(KEYS).content.decode()


def test_being_used_is_noted_at_most_once_a_minute() -> None:
    key, _ = make.key(make.project(), "inference")
    first = timezone.now()
    for later in (0, 30, 90):
        key.used(at=first + timedelta(seconds=later))
        key.refresh_from_db()
        assert key.last_used_at == first + timedelta(seconds=90 if later == 90 else 0)


def test_the_page_costs_the_same_for_many(alice: User, django_assert_max_num_queries: Any) -> None:
    project = Membership.objects.get().project
    for _ in range(60):
        ApiKey.issue(project, name="k", scopes=["inference"], by=alice)
    client = as_(alice)
    client.get(KEYS)
    with django_assert_max_num_queries(8):
        assert "1–50 of 60" in client.get(KEYS).content.decode()
