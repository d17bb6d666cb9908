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
        assert secret.removeprefix(f"{key.prefix}_") not in str(cursor.fetchall())


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


# ── changed after it was made ────────────────────────────────────────────────────────────────────
def change_page(key: ApiKey) -> str:
    return f"{KEYS}{key.pk}/change/"


def test_a_key_may_be_kept_to_endpoints_and_limits_later_and_let_go_again(
    alice: User, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    project, client = Project.objects.get(), as_(alice)
    endpoint, (key, secret) = make.endpoint(project, name="tiny"), make.key(project, "inference")
    rung: list[bool] = []
    monkeypatch.setattr(bell, "ring_gateway", lambda: rung.append(True))
    kept = {"reach": "some", "endpoints": [endpoint.pk], "requests_per_minute": "60"}
    answer = client.post(change_page(key), kept, follow=True)
    page = answer.content.decode()
    assert "<code>tiny</code>" in page
    assert "60 requests a minute" in page
    assert f"Changed what the key “{key.name}” ({key.prefix}…) may call" in page  # who did what
    key.refresh_from_db()
    assert (key.endpoint_ids, key.requests_per_minute, rung) == ([endpoint.pk], 60, [True])
    again = client.get(change_page(key)).content.decode()
    assert 'value="60"' in again
    assert secret not in again
    client.post(change_page(key), {"reach": "all", "endpoints": [endpoint.pk], "requests_per_minute": ""})
    key.refresh_from_db()
    assert (key.endpoint_ids, key.requests_per_minute) == (None, None)
    assert ApiKey.objects.matching(secret, timezone.now()) == key


def test_a_change_that_cant_be_says_so_at_its_field_and_changes_nothing(alice: User) -> None:
    project = Project.objects.get()
    endpoint, elsewhere = make.endpoint(project, name="tiny"), make.endpoint(make.project("Beta"), name="other")
    (key, _), (manager, _) = make.key(project, "inference"), make.key(project, "manage")
    for which, given, field in (
        (key, {"reach": "some"}, "endpoints"),
        (key, {"reach": "some", "endpoints": [elsewhere.pk]}, "endpoints"),
        (key, {"reach": "all", "tokens_per_minute": "0"}, "tokens_per_minute"),
        (manager, {"reach": "some", "endpoints": [endpoint.pk]}, "reach"),
    ):
        answer = as_(alice).post(change_page(which), given)
        assert answer.status_code == 422
        assert f'id="id_{field}_error"' in answer.content.decode()
    assert set(ApiKey.objects.values_list("endpoint_ids", "tokens_per_minute")) == {(None, None)}


def test_a_revoked_key_is_not_changed_any_more(alice: User) -> None:
    key, _ = make.key(Project.objects.get(), "inference")
    key.revoke(at=timezone.now())
    page = (
        as_(alice).post(change_page(key), {"reach": "all", "tokens_per_minute": "5"}, follow=True).content.decode()
    )
    assert "was revoked, so there is nothing to change" in page
    assert change_page(key) not in page
    assert ApiKey.objects.get().tokens_per_minute is None


def test_a_developer_changes_keys_that_call_and_none_that_manage(alice: User) -> None:
    project = Project.objects.get()
    (key, _), (manager, _) = make.key(project, "inference"), make.key(project, "manage")
    developer = as_(make.member(project, "dev", Role.DEVELOPER))
    page = developer.get(KEYS).content.decode()
    assert change_page(key) in page
    assert change_page(manager) not in page
    assert developer.post(change_page(key), {"reach": "all", "tokens_per_minute": "7"}).status_code == 302
    assert developer.get(change_page(manager)).status_code in (403, 404)
    key.refresh_from_db()
    assert key.tokens_per_minute == 7


def test_keys_are_read_and_changed_by_rest(alice: User) -> None:
    project = Project.objects.get()
    make.endpoint(project, name="tiny")
    (_, secret), (key, _) = make.key(project, "manage"), ApiKey.issue(project, name="shop", scopes=[], by=alice)
    other, _ = make.key(make.project("Beta"), "inference")
    client = Client(headers={"authorization": f"Bearer {secret}"})
    path = f"/api/v1/keys/{key.pk}"

    def patch(to: str, body: dict[str, Any]) -> Any:
        return client.patch(to, body, content_type="application/json")

    answer = patch(path, {"endpoints": ["tiny"], "concurrent_requests": 3})
    assert answer.status_code == 200, answer.content
    assert (answer.json()["endpoints"], answer.json()["concurrent_requests"]) == (["tiny"], 3)
    assert patch(path, {"tokens_per_minute": 9}).json()["endpoints"] == ["tiny"], "what is left out stays"
    assert client.get(path).json() == patch(path, {}).json()
    assert patch(path, {"endpoints": None}).json()["endpoints"] is None
    listed = client.get("/api/v1/keys").json()
    assert [one["name"] for one in listed["items"]].count("shop") == 1
    assert secret not in str(listed)
    for body, field in (
        ({"endpoints": ["nowhere"]}, "endpoints"), ({"endpoints": []}, "endpoints"),
        ({"requests_per_minute": 0}, "requests_per_minute"), ({"name": "x"}, "name"),
    ):  # fmt: skip
        refused = patch(path, body)
        assert (refused.status_code, field in refused.content.decode()) == (422, True), body
    manager = next(one for one in listed["items"] if "manage" in one["scopes"])
    assert patch(f"/api/v1/keys/{manager['id']}", {"endpoints": ["tiny"]}).status_code == 422
    assert patch(f"/api/v1/keys/{other.pk}", {"endpoints": None}).status_code == 404
    assert client.get(f"/api/v1/keys/{2**70}").status_code == 404
