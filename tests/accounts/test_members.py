"""Projects and their members: who may change whom, and that there is always an owner."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts.models import Invitation, Membership, Project, User
from accounts.refused import Refused
from accounts.roles import Role
from tests import make

pytestmark = pytest.mark.django_db


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def place(project: Project, user: User) -> Membership:
    return project.memberships.get(user=user)


def test_somebody_makes_a_project_renames_it_and_its_address_stays() -> None:
    alice = make.user("alice")
    assert as_(alice).post("/projects/new/", {"name": "Speech"})["Location"] == "/projects/speech/endpoints/"
    as_(alice).post("/projects/speech/rename/", {"name": "Speech models"})
    project = Project.objects.get()
    assert (project.name, project.slug) == ("Speech models", "speech")
    assert "from “Speech” to “Speech models”" in project.audit.get().message


def test_a_project_needs_a_name_and_the_answer_says_so() -> None:
    answer = as_(make.user("alice")).post("/projects/new/", {"name": " "})
    assert answer.status_code == 422
    assert 'id="id_name_error"' in answer.content.decode()


def test_an_admin_changes_roles_and_the_audit_says_who_did() -> None:
    project = make.project()
    admin, bob = make.member(project, "ada", Role.ADMIN), make.member(project, "bob", Role.VIEWER)
    as_(admin).post(f"/projects/alpha/members/{place(project, bob).pk}/role/", {"role": "developer"})
    assert project.role_of(bob) == Role.DEVELOPER
    entry = project.audit.get()
    assert (entry.who, entry.message) == (admin, "Changed bob@example.com from Viewer to Developer.")


def test_only_an_owner_makes_changes_or_removes_an_owner() -> None:
    project = make.project()
    alice, admin = make.user("alice"), make.member(project, "ada", Role.ADMIN)
    for refused in (
        lambda: place(project, alice).change_role(Role.VIEWER, by=admin),
        lambda: place(project, admin).change_role(Role.OWNER, by=admin),
        lambda: place(project, alice).remove(by=admin),
        lambda: Invitation.send(project, "x@example.com", Role.OWNER, by=admin),
    ):
        with pytest.raises(Refused) as told:
            refused()
        assert told.value.code == "owners_only"


def test_nobody_is_offered_another_role_for_themselves() -> None:
    project = make.project()
    alice, bob = make.user("alice"), make.member(project, "bob", Role.VIEWER)
    page = as_(alice).get("/projects/alpha/members/").content.decode()
    assert f'id="role-{place(project, bob).pk}"' in page
    assert f'id="role-{place(project, alice).pk}"' not in page


def test_the_last_owner_can_neither_leave_nor_be_demoted() -> None:
    project = make.project()
    alice = make.user("alice")
    with pytest.raises(Refused, match="last owner"):
        place(project, alice).change_role(Role.ADMIN, by=alice)
    answer = as_(alice).post(f"/projects/alpha/members/{place(project, alice).pk}/remove/", follow=True)
    assert "The last owner can&#x27;t leave" in answer.content.decode()
    assert project.role_of(alice) == Role.OWNER


@pytest.mark.django_db(transaction=True)
def test_two_owners_who_leave_at_once_leave_one_behind() -> None:
    project = make.project()
    alice, bob = make.user("alice"), make.member(project, "bob", Role.OWNER)

    def leave(user: User) -> bool:
        try:
            place(project, user).remove(by=user)
        except Refused:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(2) as both:
        assert sorted(both.map(leave, [alice, bob])) == [False, True]
    assert project.memberships.get().role == Role.OWNER


def test_a_member_leaves_and_finds_nothing_there_any_more() -> None:
    project = make.project()
    bob = make.member(project, "bob", Role.BILLING)
    client = as_(bob)
    client.post(f"/projects/alpha/members/{place(project, bob).pk}/remove/")
    assert client.get("/projects/alpha/members/").status_code == 404


def test_a_viewer_removes_nobody_else() -> None:
    project = make.project()
    bob = make.member(project, "bob", Role.VIEWER)
    answer = as_(bob).post(f"/projects/alpha/members/{place(project, make.user('alice')).pk}/remove/")
    assert answer.status_code == 403
    assert project.memberships.count() == 2


def test_a_membership_of_another_project_is_not_reached_through_ones_own() -> None:
    make.project("Alpha", make.user("alice"))
    beta = make.project("Beta", make.user("charlie"))
    theirs = place(beta, make.user("charlie"))
    answer = as_(make.user("alice")).post(f"/projects/alpha/members/{theirs.pk}/role/", {"role": "viewer"})
    assert answer.status_code == 404


# ── invitations ──────────────────────────────────────────────────────────────────────────────────
def invite(project: Project, email: str, role: str = Role.DEVELOPER) -> Any:
    client = as_(make.user("alice"))
    return client.post(f"/projects/{project.slug}/members/invite/", {"email": email, "role": role}, follow=True)


def test_inviting_says_nothing_of_whether_the_address_has_an_account() -> None:
    project = make.project()
    make.user("bob")
    known, unknown = invite(project, "bob@example.com"), invite(project, "new@example.com")
    assert "bob@example.com is invited" in known.content.decode()
    assert "new@example.com is invited" in unknown.content.decode()
    assert project.memberships.count() == 1


def test_an_invitation_is_taken_by_its_link_once() -> None:
    project, bob = make.project(), make.user("bob")
    invite(project, "Bob@example.com")
    path = f"/invitations/{project.invitations.get().token}/"
    client = as_(bob)
    assert "invites you as" in client.get(path).content.decode()
    assert project.role_of(bob) is None
    assert client.post(path)["Location"] == "/projects/alpha/endpoints/"
    assert project.role_of(bob) == Role.DEVELOPER
    assert client.post(path).status_code == 410


def test_an_invitation_is_for_its_address_alone() -> None:
    project = make.project()
    invite(project, "bob@example.com")
    charlie = make.user("charlie")
    path = f"/invitations/{project.invitations.get().token}/"
    assert as_(charlie).post(path).status_code == 403
    assert project.role_of(charlie) is None


def test_an_address_that_nobody_proved_takes_nothing_at_login_and_a_confirmed_one_does() -> None:
    project, bob = make.project(), make.user("bob")
    invite(project, "bob@example.com", Role.VIEWER)
    credentials = {"username": "bob@example.com", "password": make.PASSWORD}
    Client().post("/login/", credentials)
    assert project.role_of(bob) is None
    User.objects.filter(pk=bob.pk).update(email_confirmed_at=timezone.now())
    Client().post("/login/", credentials)
    assert project.role_of(bob) == Role.VIEWER


def test_old_and_withdrawn_invitations_open_nothing() -> None:
    project, bob = make.project(), make.user("bob")
    invite(project, "bob@example.com")
    invitation = project.invitations.get()
    path = f"/invitations/{invitation.token}/"
    project.invitations.update(created_at=timezone.now() - timedelta(days=15))
    assert as_(bob).get(path).status_code == 410
    project.invitations.update(created_at=timezone.now())
    as_(make.user("alice")).post(f"/projects/alpha/invitations/{invitation.pk}/withdraw/")
    assert as_(bob).get(path).status_code == 410


def test_a_member_is_not_invited_again() -> None:
    project = make.project()
    answer = invite(project, "alice@example.com")
    assert answer.status_code == 422
    assert "is a member already" in answer.content.decode()


def test_the_members_page_costs_the_same_for_many(django_assert_max_num_queries: Any) -> None:
    project = make.project()
    for number in range(30):
        make.member(project, f"m{number}", Role.VIEWER)
    client = as_(make.user("alice"))
    client.get("/projects/alpha/members/")
    with django_assert_max_num_queries(8):
        assert client.get("/projects/alpha/members/").status_code == 200
