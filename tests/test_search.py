"""The search box: what a project has by a part of its name, and nothing of anybody else's."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import ApiKey, Project, Scope, ServiceAccount
from accounts.roles import Role
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make.project(owner=make.user("alice"))


def look(project: Project, wanted: str, *, as_: str = "alice", fragment: bool = True) -> str:
    client = Client(headers={"HX-Request": "true"} if fragment else {})
    client.force_login(make.user(as_))
    answer = client.get(reverse("search", kwargs={"project": project.slug}), {"q": wanted})
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_part_of_a_name_finds_the_endpoint_with_its_status(project: Project) -> None:
    make.endpoint(project, name="chat-support", ready=1)
    page = look(project, "SUPP")
    assert reverse("endpoints:detail", kwargs={"project": project.slug, "name": "chat-support"}) in page
    assert "Active" in page


def test_keys_are_found_by_name_and_by_their_visible_beginning(project: Project) -> None:
    key, secret = ApiKey.issue(project, name="checkout", scopes=[Scope.INFERENCE], by=make.user("alice"))
    for wanted in ("check", key.prefix):
        page = look(project, wanted)
        assert f"#key-{key.pk}" in page
        assert secret not in page


def test_service_accounts_are_found_by_name_and_by_the_beginning_of_a_credential(project: Project) -> None:
    account, key, secret = ServiceAccount.open(project, name="checkout", by=make.user("alice"))
    account.rotate(at=timezone.now(), old_until=None, by=None)
    place = reverse("accounts:service", kwargs={"project": project.slug, "pk": account.pk})
    for wanted in ("check", key.prefix, "tir_"):
        page = look(project, wanted)
        assert page.count(place) == 1
        assert secret not in page


def test_pages_are_found_as_far_as_the_role_may_see_them(project: Project) -> None:
    assert reverse("accounts:members", kwargs={"project": project.slug}) in look(project, "member")


def test_another_projects_things_are_never_found(project: Project) -> None:
    other = make.project("Other", owner=make.user("charlie"))
    make.endpoint(other, name="secret-plan")
    ApiKey.issue(other, name="secret-key", scopes=[Scope.INFERENCE], by=make.user("charlie"))
    ServiceAccount.open(other, name="secret-account", by=None)
    assert "Nothing here is called “secret-”." in look(project, "secret-")


@pytest.mark.parametrize("wanted", ["", "   ", "\0", "%", "_", "<script>", "x" * 5000, "'; --"])
def test_odd_words_find_nothing_and_break_nothing(project: Project, wanted: str) -> None:
    make.endpoint(project, name="plain")
    page = look(project, wanted)
    assert "plain" not in page
    assert "<script>" not in page


def test_without_javascript_it_is_a_page(project: Project) -> None:
    make.endpoint(project, name="chat-support")
    page = look(project, "chat", fragment=False)
    assert "<html" in page
    assert "chat-support" in page


def test_a_billing_member_finds_what_it_may_see(project: Project) -> None:
    project.memberships.create(user=make.user("bill"), role=Role.BILLING)
    make.endpoint(project, name="chat-support")
    assert "chat-support" in look(project, "chat", as_="bill")
