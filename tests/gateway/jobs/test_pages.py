"""What people and programs see of asynchronous requests in the console."""

import html
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from standardwebhooks import Webhook

from accounts.roles import Role
from gateway.jobs import queue
from gateway.jobs.judge import SUCCEEDED, End, ending
from gateway.jobs.models import AsyncRequest, Delivery, State, Told, WebhookSecret
from tests import make
from tests.gateway.jobs.harness import World, world

LIST = "/projects/alpha/async/"
SECRET = "/projects/alpha/async/secret/"
ASKED, ANSWERED = b'{"messages":"what was asked"}', b'{"choices":"what was answered"}'


@pytest.fixture
def here(db: None) -> World:
    return world()


@pytest.fixture
def alice(here: World) -> Client:
    client = Client()
    client.force_login(make.user("alice"))
    return client


def logged_in(here: World, name: str, role: str) -> Client:
    client = Client()
    client.force_login(make.member(here.endpoint.project, name, role))
    return client


def submitted(here: World, webhook: str = "https://example.com/hook?token=hidden") -> AsyncRequest:
    same = {"project_id": here.endpoint.project_id, "endpoint_id": here.endpoint.pk, "key_id": here.key.pk}
    return AsyncRequest.submit(path="v1/chat/completions", body=ASKED, webhook=webhook, **same)[0]


def ended(here: World, end: End | None = None) -> AsyncRequest:
    one = submitted(here)
    revision = here.endpoint.serving_revision_id or 0
    (run,) = queue.claim(here.endpoint.pk, capacity=100, busy=0)
    assert queue.finish(run, end or End(SUCCEEDED, 200, ANSWERED, prompt=3, completion=4, revision_id=revision))
    one.refresh_from_db()
    return one


def text(client: Client, path: str, **query: str) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200, path
    return answer.content.decode()


class TestList:
    def test_an_empty_one_teaches_the_call_of_a_real_endpoint(self, here: World, alice: Client) -> None:
        page = text(alice, LIST)
        assert "No async requests yet" in page
        assert "/e/tiny/v1/async/chat/completions" in page
        assert 'aria-current="page"' in page, "it stands in the menu"

    def test_it_is_narrowed_by_endpoint_and_state(self, here: World, alice: Client) -> None:
        done, waits = ended(here), submitted(here)
        assert {one.request_id[:22] in text(alice, LIST) for one in (done, waits)} == {True}
        page = text(alice, LIST, state="queued", endpoint="tiny")
        assert waits.request_id in page
        assert done.request_id not in page
        assert "Nothing matches" in text(alice, LIST, state="failed")
        assert "Nothing matches" in text(alice, LIST, endpoint="another")

    def test_its_queries_do_not_grow_with_its_rows(self, here: World, alice: Client) -> None:
        ended(here)
        text(alice, LIST)
        with CaptureQueriesContext(connection) as few:
            text(alice, LIST)
        for _ in range(5):
            ended(here)
        with CaptureQueriesContext(connection) as many:
            text(alice, LIST)
        assert len(many) == len(few)
        assert not [query for query in many if '"body"' in query["sql"]]


class TestDetail:
    def test_it_tells_times_sizes_and_tries_and_nothing_that_was_said(self, here: World, alice: Client) -> None:
        one = ended(here)
        Delivery.objects.create(request=one, status=503, error="The receiver answered 503.", seconds=0.2)
        page = text(alice, f"{LIST}{one.request_id}/")
        for shown in (
            one.request_id,
            "Succeeded",
            "3 in, 4 out",
            f"{len(ANSWERED)} B",
            "https://example.com/hook?…",
            "The receiver answered 503.",
            "The schedule",
            here.key.prefix,
        ):
            assert shown in page
        for hidden in ("what was asked", "what was answered", "token=hidden"):
            assert hidden not in page

    def test_why_it_failed_is_told_to_those_who_read_logs(self, here: World, alice: Client) -> None:
        one = ended(here, ending(400, "too_long", "The prompt “my secret plan” is too long."))
        path = f"{LIST}{one.request_id}/"
        assert "my secret plan" in text(alice, path)
        accountant = text(logged_in(here, "carol", Role.BILLING), path)
        assert "my secret plan" not in accountant
        assert "Your role doesn't see why" in html.unescape(accountant)

    def test_one_that_waits_can_be_cancelled_and_one_that_is_over_delivered_again(
        self, here: World, alice: Client
    ) -> None:
        waits = submitted(here)
        path = f"{LIST}{waits.request_id}/"
        assert 'id="cancel"' in text(alice, path)
        assert 'id="redeliver"' not in text(alice, path)
        assert "Cancelled" in alice.post(f"{path}cancel/", follow=True).content.decode()
        waits.refresh_from_db()
        assert (waits.state, waits.cancelled_by) == (State.CANCELLED, "alice")
        done = ended(here)
        AsyncRequest.objects.filter(pk=done.pk).update(told=Told.GIVEN_UP)
        path = f"{LIST}{done.request_id}/"
        assert 'id="cancel"' not in text(alice, path)
        assert 'id="redeliver"' in text(alice, path)
        alice.post(f"{path}redeliver/")
        done.refresh_from_db()
        assert (done.told, done.asked_by) == (Told.WAITING, "alice")
        assert "had succeeded already" in alice.post(f"{path}cancel/", follow=True).content.decode()

    def test_a_viewer_sees_no_button(self, here: World) -> None:
        page = text(logged_in(here, "vera", Role.VIEWER), f"{LIST}{submitted(here).request_id}/")
        assert 'id="cancel"' not in page

    def test_another_projects_is_not_there(self, here: World, alice: Client) -> None:
        one = submitted(here)
        make.project("Beta", make.user("charlie"))
        charlie = Client()
        charlie.force_login(make.user("charlie"))
        assert charlie.get(f"/projects/beta/async/{one.request_id}/").status_code == 404


class TestSecret:
    def test_it_is_shown_once_and_a_form_sent_again_shows_none(self, here: World, alice: Client) -> None:
        assert "There is none yet" in text(alice, SECRET)
        made = alice.post(f"{SECRET}rotate/", {"replacing": ""})
        value = next(iter(WebhookSecret.valid(here.endpoint.project, at=timezone.now())))
        assert made.status_code == 201
        assert value in made.content.decode()
        assert "no-store" in made["Cache-Control"]
        again = alice.post(f"{SECRET}rotate/", {"replacing": ""}, follow=True).content.decode()
        assert "rotated already" in again
        assert value not in again + text(alice, SECRET)

    def test_a_rotation_says_until_when_the_old_one_signs(self, here: World, alice: Client) -> None:
        first, _ = WebhookSecret.rotate(here.endpoint.project, replacing=None, by=None)
        page = alice.post(f"{SECRET}rotate/", {"replacing": first.pk}).content.decode()
        assert "signs beside it until" in page
        assert "Made a new webhook secret." in text(alice, SECRET)


class TestRest:
    @pytest.fixture
    def call(self, here: World) -> Any:
        client, (_, secret) = Client(), make.key(here.endpoint.project, "manage")

        def call(method: str, path: str, body: Any = None) -> Any:
            return client.generic(
                method,
                f"/api/v1{path}",
                "" if body is None else body,
                "application/json",
                headers={"authorization": f"Bearer {secret}"},
            )

        return call

    def test_rows_come_page_by_page_without_what_was_said(self, here: World, call: Any) -> None:
        ids = [ended(here).request_id for _ in range(3)]
        first = call("GET", "/async-requests?limit=2&state=succeeded&endpoint=tiny").json()
        second = call("GET", f"/async-requests?limit=2&cursor={first['next_cursor']}").json()
        assert [row["request_id"] for row in first["items"] + second["items"]] == ids[::-1]
        assert second["next_cursor"] is None
        shown = call("GET", f"/async-requests/{ids[0]}")
        assert shown.json()["result_bytes"] == len(ANSWERED)
        assert b"what was" not in shown.content
        assert call("GET", "/async-requests?state=odd").status_code == 422
        assert call("GET", "/async-requests/none").status_code == 404

    def test_the_verbs_are_the_pages(self, here: World, call: Any) -> None:
        one = submitted(here)
        assert call("POST", f"/async-requests/{one.request_id}/redeliver").status_code == 409
        assert call("POST", f"/async-requests/{one.request_id}/cancel").json()["state"] == "cancelled"
        assert call("POST", f"/async-requests/{one.request_id}/cancel").status_code == 200
        assert call("POST", f"/async-requests/{one.request_id}/redeliver").json()["webhook"] == "waiting"
        assert call("POST", f"/async-requests/{ended(here).request_id}/cancel").status_code == 409

    def test_a_secret_is_rotated_by_who_knows_which_is_current(self, here: World, call: Any) -> None:
        assert call("GET", "/webhook-secret").json() == {"id": None, "created_at": None, "previous_until": None}
        made = call("POST", "/webhook-secret/rotate", "{}").json()
        assert Webhook(made["secret"])
        assert call("POST", "/webhook-secret/rotate", "{}").status_code == 409
        again = call("POST", "/webhook-secret/rotate", f'{{"replacing": {made["id"]}}}').json()
        assert again["previous_until"] is not None
        assert "secret" not in call("GET", "/webhook-secret").json()
