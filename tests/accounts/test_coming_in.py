"""Log in, sign up, one-time links, forgotten passwords: nobody learns who has an account."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.utils import timezone

from accounts import links, signup
from accounts.models import Project, User
from accounts.roles import Role
from tests import make
from tests.wait import until

pytestmark = pytest.mark.django_db
NEW = {"name": "Dora", "email": "Dora@Example.com", "password": "a long enough phrase"}


@pytest.fixture
def mailing(settings: Any) -> None:
    settings.EMAIL_HOST = "mail.example.com"


def log_in(client: Client, email: str, password: str, **more: str) -> Any:
    return client.post("/login/", {"username": email, "password": password, **more})


def mailed() -> str:
    """The first link of the newest message."""
    until(lambda: mail.outbox, what="a message")
    return next(word for word in str(mail.outbox[-1].body).split() if word.startswith("http")).partition("8000")[2]


def test_email_and_password_let_in_whatever_the_case_of_the_email(client: Client) -> None:
    make.user("alice")
    assert log_in(client, "ALICE@example.com", make.PASSWORD)["Location"] == "/"
    assert client.get("/account/").status_code == 200


def test_a_wrong_password_and_an_unknown_email_get_the_same_answer(client: Client) -> None:
    make.user("alice")
    who = ["alice@example.com", "nobody@example.com"]
    pages = [log_in(client, email, "wrong") for email in who]
    assert [page.status_code for page in pages] == [422, 422]
    heads = [page.content.decode().partition("csrfmiddlewaretoken")[0] for page in pages]
    assert "The email or the password is wrong" in heads[0]
    assert heads[0] == heads[1]


@pytest.mark.parametrize("email", ["alice@example.com", "nobody@example.com"])
def test_too_many_wrong_passwords_lock_out_known_and_unknown_alike(client: Client, email: str) -> None:
    make.user("alice")
    answers = [log_in(client, email, "wrong").status_code for _ in range(9)]
    assert answers[0] == 422
    assert answers[-1] == 429
    assert log_in(client, email, make.PASSWORD).status_code == 429


def test_a_lock_out_is_not_avoided_by_other_letters_and_hits_nobody_else(client: Client) -> None:
    make.user("alice")
    make.user("bob")
    for _ in range(9):
        log_in(client, "alice@example.com", "wrong")
    assert log_in(client, "Alice@Example.com", make.PASSWORD).status_code == 429
    assert log_in(client, "bob@example.com", make.PASSWORD).status_code == 302


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [("/account/?a=1", "/account/?a=1"), ("https://evil.example/", "/"), ("//evil.example", "/"), ("", "/")],
)
def test_next_is_kept_and_leads_nowhere_else(client: Client, wanted: str, reached: str) -> None:
    make.user("alice")
    assert log_in(client, "alice@example.com", make.PASSWORD, next=wanted)["Location"] == reached


def test_an_expired_login_comes_back_to_where_it_was(client: Client) -> None:
    make.project("Alpha", make.user("alice"))
    asked = client.get("/projects/alpha/keys/")
    assert asked["Location"] == "/login/?next=/projects/alpha/keys/"
    assert 'value="/projects/alpha/keys/"' in client.get(asked["Location"]).content.decode()


def test_logging_out_takes_a_post(client: Client) -> None:
    client.force_login(make.user("alice"))
    assert client.get("/logout/").status_code == 405
    client.post("/logout/")
    assert client.get("/account/").status_code == 302


def test_a_new_person_signs_up_logs_in_and_has_a_project(client: Client) -> None:
    assert client.post("/signup/", NEW)["Location"] == "/signup/done/"
    assert log_in(client, "dora@example.com", NEW["password"]).status_code == 302
    own = Project.objects.visible_to(User.objects.get(email="dora@example.com")).get()
    assert own.slug == "doras-project"
    assert own.memberships.get().role == Role.OWNER


def test_signing_up_with_a_known_email_gets_the_same_answer_and_changes_nothing(client: Client) -> None:
    alice = make.user("alice")
    known = client.post("/signup/", NEW | {"email": "alice@example.com"})
    fresh = client.post("/signup/", NEW)
    assert (known.status_code, known["Location"]) == (fresh.status_code, fresh["Location"])
    alice.refresh_from_db()
    assert alice.check_password(make.PASSWORD)
    assert alice.name == "alice"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "no address"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "password123"}, "password"),
        ({"password": "dora@example"}, "password"),
        ({"name": ""}, "name"),
    ],
)
def test_a_bad_sign_up_says_at_the_field_what_to_mend(client: Client, change: dict[str, str], field: str) -> None:
    answer = client.post("/signup/", NEW | change)
    assert answer.status_code == 422
    assert f'id="id_{field}_error"' in answer.content.decode()
    assert not User.objects.exists()


def test_a_closed_sign_up_takes_nobody(client: Client, settings: Any) -> None:
    settings.SIGN_UP_OPEN = False
    assert client.post("/signup/", NEW).status_code == 403
    assert not User.objects.exists()
    assert "Sign up" not in client.get("/login/").content.decode()


def test_one_address_signs_up_only_so_often(client: Client) -> None:
    answers = [client.post("/signup/", NEW | {"email": f"{n}@example.com"}).status_code for n in range(21)]
    assert answers[19:] == [302, 429]


def test_with_mail_an_account_works_once_its_link_met_its_password(client: Client, mailing: None) -> None:
    client.post("/signup/", NEW)
    assert log_in(client, "dora@example.com", NEW["password"]).status_code == 422
    link = mailed()
    assert client.get(link).status_code == 200
    assert client.post(link, {"password": "guessed"}).status_code == 422
    assert client.post(link, {"password": NEW["password"]}).status_code == 302
    assert User.objects.get().email_confirmed_at is not None
    assert client.get("/account/").status_code == 200
    assert client.get(link).status_code == 410


def test_with_mail_a_known_address_gets_the_same_answer_and_a_message_of_its_own(
    client: Client, mailing: None
) -> None:
    make.user("alice")
    assert client.post("/signup/", NEW | {"email": "alice@example.com"})["Location"] == "/signup/done/"
    assert mailed() == "/password/forgotten/"
    assert User.objects.count() == 1


def test_somebody_elses_unfinished_sign_up_is_not_taken_over(client: Client, mailing: None) -> None:
    client.post("/signup/", NEW | {"password": "what the attacker chose"})
    first = mailed()
    mail.outbox.clear()
    client.post("/signup/", NEW)
    assert client.get(first).status_code == 410
    assert client.post(mailed(), {"password": "what the attacker chose"}).status_code == 422


def test_finishing_a_sign_up_happens_once() -> None:
    user = User.objects.create(email="d@example.com", is_active=False, password="x")
    assert [signup.finish(user, at=timezone.now()) for _ in range(2)] == [True, False]


# ── links that log in once ───────────────────────────────────────────────────────────────────────
def test_a_scanner_that_opens_a_login_link_does_not_spend_it(client: Client) -> None:
    path = f"/login/link/{links.make(make.user('alice'))}/"
    assert "Continue as alice" in Client().get(path).content.decode()
    assert client.post(path)["Location"] == "/"
    assert client.get("/account/").status_code == 200
    assert Client().post(path).status_code == 410


def test_of_two_who_follow_a_link_at_once_one_comes_in() -> None:
    token = links.make(make.user("alice"))
    assert [links.spend(token, at=timezone.now()) is None for _ in range(2)] == [False, True]


def test_a_login_link_dies_after_a_quarter_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    token = links.make(make.user("alice"))
    monkeypatch.setattr(links, "LIFETIME", timedelta(seconds=-1))
    assert links.look(token) is None


def test_a_login_link_dies_with_the_password_it_was_made_for_and_with_its_person() -> None:
    alice, bob = make.user("alice"), make.user("bob")
    first, second = links.make(alice), links.make(bob)
    alice.set_password("another one")
    alice.save()
    User.objects.filter(pk=bob.pk).update(is_active=False)
    assert links.look(first) is None
    assert links.look(second) is None
    assert links.look("forged") is None


def test_a_login_link_leads_on_to_next(client: Client) -> None:
    path = f"/login/link/{links.make(make.user('alice'))}/"
    assert client.post(path, {"next": "/account/"})["Location"] == "/account/"


def test_the_command_prints_a_link_and_nothing_else(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    make.user("alice")
    call_command("login_link", "alice@example.com")
    printed = capsys.readouterr().out.strip()
    assert client.post(printed.partition("8000")[2]).status_code == 302
    with pytest.raises(CommandError, match=r"nobody@example\.com"):
        call_command("login_link", "nobody@example.com")


# ── forgotten passwords ──────────────────────────────────────────────────────────────────────────
def test_a_forgotten_password_is_changed_by_a_mailed_link(client: Client, mailing: None) -> None:
    make.user("alice")
    client.post("/password/forgotten/", {"email": "alice@example.com"})
    form = client.get(mailed(), follow=True)
    place = form.redirect_chain[-1][0]
    assert client.post(place, {"new_password1": "short", "new_password2": "short"}).status_code == 422
    client.post(place, {"new_password1": "a newer phrase", "new_password2": "a newer phrase"})
    assert log_in(client, "alice@example.com", "a newer phrase").status_code == 302
    assert User.objects.get().email_confirmed_at is not None


def test_an_unknown_email_gets_the_same_answer_and_no_message(client: Client, mailing: None) -> None:
    make.user("alice")
    unknown = client.post("/password/forgotten/", {"email": "nobody@example.com"})
    known = client.post("/password/forgotten/", {"email": "alice@example.com"})
    assert (unknown.status_code, unknown["Location"]) == (known.status_code, known["Location"])
    mailed()
    assert [message.to for message in mail.outbox] == [["alice@example.com"]]


def test_without_mail_the_page_says_what_helps_instead(client: Client) -> None:
    assert "manage.py login_link" in client.get("/password/forgotten/").content.decode()


# ── the account page ─────────────────────────────────────────────────────────────────────────────
def test_a_changed_password_ends_every_other_session() -> None:
    alice = make.user("alice")
    here, elsewhere = Client(), Client()
    here.force_login(alice)
    elsewhere.force_login(alice)
    new = {"new_password1": "a newer phrase", "new_password2": "a newer phrase"}
    assert here.post("/account/password/", {"old_password": "wrong", **new}).status_code == 422
    here.post("/account/password/", {"old_password": make.PASSWORD, **new})
    assert here.get("/account/").status_code == 200
    assert elsewhere.get("/account/").status_code == 302


def test_the_time_zone_is_the_persons_else_the_browsers(client: Client) -> None:
    client.force_login(make.user("alice"))
    client.cookies["timezone"] = "Asia/Kolkata"
    assert "Your browser says Asia/Kolkata" in client.get("/account/").content.decode()
    client.post("/account/", {"name": "Alice", "timezone": "Europe/Paris"})
    assert User.objects.get().timezone == "Europe/Paris"
    assert client.post("/account/", {"name": "Alice", "timezone": "Mars/Olympus"}).status_code == 422
