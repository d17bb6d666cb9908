"""Service accounts: one name, credentials that change with overlap, an allowance for all of them."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import bell
from accounts.models import ApiKey, Project, ServiceAccount, User
from accounts.models.service import MOST_CREDENTIALS
from accounts.refused import Refused
from accounts.roles import Role
from tests import make

pytestmark = pytest.mark.django_db
PAGE = "/projects/alpha/service-accounts/"


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def form(**changes: Any) -> dict[str, Any]:
    return {"request_id": str(uuid.uuid4()), "name": "shop", "description": "", "expiry": ""} | changes


def secret_in(answer: Any) -> str:
    return re.search(r"tir_[0-9a-f]{8}_[\w-]{40,}", answer.content.decode()).group()  # type: ignore[union-attr]


def works(secret: str, hours: float = 0) -> bool:
    return ApiKey.objects.matching(secret, timezone.now() + timedelta(hours=hours)) is not None


@pytest.fixture
def alice() -> User:
    return make.project().memberships.get().user


@pytest.fixture
def shop(alice: User) -> tuple[ServiceAccount, str]:
    account, _, secret = ServiceAccount.open(Project.objects.get(), name="shop", by=alice)
    return account, secret


def test_a_new_account_shows_its_first_credential_once(alice: User) -> None:
    endpoint = make.endpoint(Project.objects.get(), name="tiny")
    client = as_(alice)
    narrowed = form(reach="some", endpoints=[endpoint.pk], requests_per_minute="60", concurrent_requests="2")
    shown = client.post(PAGE + "new/", narrowed)
    secret = secret_in(shown)
    assert (shown.status_code, "no-store" in shown["Cache-Control"]) == (201, True)
    account = ServiceAccount.objects.get()
    assert (account.endpoint_ids, account.requests_per_minute, account.tokens_per_minute) == (
        [endpoint.pk],
        60,
        None,
    )
    key = ApiKey.objects.matching(secret, timezone.now())
    assert key is not None
    assert (key.service_account, key.scopes, key.endpoint_ids) == (account, ["inference"], None)
    for page in (client.get(PAGE), client.get(f"{PAGE}{account.pk}/")):
        text = page.content.decode()
        assert secret not in text
        assert "60 requests a minute" in text
        assert "<code>tiny</code>" in text
    assert secret not in client.post(PAGE + "new/", narrowed).content.decode()
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [({"name": ""}, "name"), ({"name": "The Shop"}, "name"), ({"name": "shop"}, "name"),
     ({"reach": "some"}, "endpoints"), ({"reach": "some", "endpoints": ["999"]}, "endpoints"),
     ({"tokens_per_minute": "0"}, "tokens_per_minute"), ({"requests_per_minute": "many"}, "requests_per_minute"),
     ({"concurrent_requests": "100001"}, "concurrent_requests"), ({"expiry": "date"}, "expires_on")],
)  # fmt: skip
def test_a_bad_form_says_at_the_field_what_to_mend(
    alice: User, shop: tuple[ServiceAccount, str], change: dict[str, Any], field: str
) -> None:
    answer = as_(alice).post(PAGE + "new/", form(name="other") | change)
    assert answer.status_code == 422
    assert f'id="id_{field}_error"' in answer.content.decode()
    assert ServiceAccount.objects.count() == ApiKey.objects.count() == 1


def test_an_endpoint_of_another_project_cant_be_chosen(alice: User) -> None:
    theirs = make.endpoint(make.project("Beta", make.user("charlie")))
    answer = as_(alice).post(PAGE + "new/", form(reach="some", endpoints=[theirs.pk]))
    assert answer.status_code == 422
    assert theirs.name not in answer.content.decode()


@pytest.mark.parametrize(
    ("old", "now", "in_30_hours"),
    [("24", True, False), ("168", True, True), ("0", False, False), ("", True, True)],
)
def test_a_rotation_lets_the_old_work_on_as_long_as_was_chosen(
    alice: User, shop: tuple[ServiceAccount, str], old: str, now: bool, in_30_hours: bool
) -> None:
    account, first = shop
    given = {"request_id": str(uuid.uuid4()), "old": old, "expiry": ""}
    shown = as_(alice).post(f"{PAGE}{account.pk}/rotate/", given)
    second = secret_in(shown)
    assert shown.status_code == 201
    assert (works(first), works(first, hours=30)) == (now, in_30_hours)
    assert works(second, hours=24 * 365)
    as_(alice).post(f"{PAGE}{account.pk}/rotate/", given)
    assert account.credentials.count() == 2, "the same form made a second one"


def test_a_rotation_never_lengthens_a_life(alice: User, shop: tuple[ServiceAccount, str]) -> None:
    account, first = shop
    now = timezone.now()
    account.credentials.update(expires_at=now + timedelta(hours=1))
    account.rotate(at=now, old_until=now + timedelta(hours=24), by=alice)
    assert (works(first), works(first, hours=2)) == (True, False)


def test_too_many_credentials_are_refused_before_any_is_made(shop: tuple[ServiceAccount, str]) -> None:
    account, now = shop[0], timezone.now()
    for _ in range(MOST_CREDENTIALS - 1):
        account.rotate(at=now, old_until=None, by=None)
    with pytest.raises(Refused, match="Revoke one first"):
        account.rotate(at=now, old_until=None, by=None)
    account.rotate(at=now, old_until=now, by=None)
    assert account.credentials.live(now).count() == 1


def test_one_credential_is_revoked_and_the_others_work_on(alice: User, shop: tuple[ServiceAccount, str]) -> None:
    account, first = shop
    key, second = account.rotate(at=timezone.now(), old_until=None, by=alice)
    page = as_(alice).post(f"{PAGE}{account.pk}/credentials/{key.pk}/revoke/", follow=True).content.decode()
    assert "Revoked" in page
    assert (works(first), works(second)) == (True, False)
    plain, _ = make.key(account.project)
    assert as_(alice).post(f"{PAGE}{account.pk}/credentials/{plain.pk}/revoke/").status_code == 404


def test_disabled_it_is_refused_until_it_is_enabled_and_gateways_hear_of_both(
    alice: User,
    shop: tuple[ServiceAccount, str],
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    rung: list[str] = []
    monkeypatch.setattr(bell, "_publish_routes", lambda: rung.append("routes"))
    account, secret = shop
    seen = []
    for act in ("disable", "disable", "enable"):
        with django_capture_on_commit_callbacks(execute=True):
            as_(alice).post(f"{PAGE}{account.pk}/{act}/")
        seen.append(works(secret))
    assert seen == [False, False, True]
    assert len(rung) == 2


def test_deleting_takes_its_name_and_leaves_refused_credentials_as_evidence(
    alice: User, shop: tuple[ServiceAccount, str]
) -> None:
    account, secret = shop
    client = as_(alice)
    client.post(f"{PAGE}{account.pk}/delete/", {"confirm": "shoq"})
    assert works(secret)
    page = client.post(f"{PAGE}{account.pk}/delete/", {"confirm": "shop"}, follow=True).content.decode()
    assert not works(secret)
    assert "No service accounts yet" in page
    assert "Deleted the service account “shop”" in page
    assert ApiKey.objects.get().state == "revoked"
    assert "No keys yet" in client.get("/projects/alpha/keys/").content.decode()
    ServiceAccount.open(account.project, name="shop", by=alice)


def test_a_change_holds_for_all_credentials_and_keeps_a_list_whose_endpoints_are_gone(
    alice: User, shop: tuple[ServiceAccount, str]
) -> None:
    account, client = shop[0], as_(alice)
    endpoint = make.endpoint(account.project, name="tiny")
    change = {"description": "Ask Asha", "reach": "some", "endpoints": [endpoint.pk], "tokens_per_minute": "1000"}
    client.post(f"{PAGE}{account.pk}/change/", change)
    account.refresh_from_db()
    assert (account.description, account.endpoint_ids, account.tokens_per_minute) == (
        "Ask Asha",
        [endpoint.pk],
        1000,
    )
    type(endpoint).objects.update(deleted_at=timezone.now())
    page = client.get(f"{PAGE}{account.pk}/").content.decode()
    assert "those it named are deleted" in page
    answer = client.post(f"{PAGE}{account.pk}/change/", {"description": "", "reach": "some"})
    assert answer.status_code == 422, "no endpoint left must not become every endpoint"


def test_a_viewer_sees_it_and_changes_nothing(alice: User, shop: tuple[ServiceAccount, str]) -> None:
    account = shop[0]
    viewer = as_(make.member(account.project, "bob", Role.VIEWER))
    page = viewer.get(f"{PAGE}{account.pk}/")
    assert page.status_code == 200
    for act in ("rotate", "disable", "delete", "Revoke"):
        assert f'data-dialog="{act}' not in page.content.decode()


def test_people_see_who_did_what_to_accounts_beside_keys_and_members(
    alice: User, shop: tuple[ServiceAccount, str]
) -> None:
    client = as_(alice)
    noted = "Made the service account “shop”"
    assert noted in client.get(PAGE).content.decode()
    assert noted not in client.get("/projects/alpha/members/").content.decode()
    assert noted not in client.get("/projects/alpha/keys/").content.decode()


def test_the_page_costs_the_same_for_many(alice: User, django_assert_max_num_queries: Any) -> None:
    endpoint = make.endpoint(Project.objects.get())
    for number in range(12):
        ServiceAccount.open(endpoint.project, name=f"s{number}", by=alice, endpoint_ids=[endpoint.pk])
    client = as_(alice)
    client.get(PAGE)
    with django_assert_max_num_queries(9):
        assert client.get(PAGE).content.decode().count(f"<code>{endpoint.name}</code>") == 12


def test_a_project_is_deleted_with_its_accounts(alice: User, shop: tuple[ServiceAccount, str]) -> None:
    shop[0].project.delete()
    assert not ServiceAccount.objects.exists()
    assert not works(shop[1])
