"""The Traffic tab: rules that hold at once, errors at their fields, and values for those who only look."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.roles import Role
from endpoints.admission_form import typed
from endpoints.models import Admission, Endpoint
from endpoints.models.admission import RANGES
from tests import make

pytestmark = pytest.mark.django_db
PAGE = "/projects/alpha/endpoints/demo/"
FIELDS = (*RANGES, "origins")


@pytest.fixture
def endpoint() -> Endpoint:
    return make.endpoint(ready=1, name="demo")


@pytest.fixture
def alice(client: Client, endpoint: Endpoint) -> Client:
    client.force_login(make.user("alice"))
    return client


def form(endpoint: Endpoint, **changes: Any) -> dict[str, str]:
    """As a page that was opened now sends it, with some fields typed over."""
    now = {name: typed(getattr(endpoint.rules, name)).replace("\n", "\r\n") for name in FIELDS}
    return {f"was_{name}": value for name, value in now.items()} | now | changes


def test_the_tab_shows_what_holds(alice: Client, endpoint: Endpoint) -> None:
    endpoint.update_admission(by=None, tokens_per_minute=4711, origins=["https://a.example", "https://b.example"])
    page = alice.get(PAGE, {"tab": "traffic"}).content.decode()
    assert 'name="tokens_per_minute" value="4711"' in page
    assert 'name="was_tokens_per_minute" value="4711"' in page
    assert "https://a.example\nhttps://b.example</textarea>" in page
    assert 'name="queue_seconds" value="30"' in page


def test_rules_are_changed_without_a_script_and_only_those_that_were(alice: Client, endpoint: Endpoint) -> None:
    opened = form(endpoint, requests_per_minute="60", origins="https://app.example\r\nhttp://localhost:3000\r\n")
    endpoint.update_admission(by=None, queue_limit=7)  # by somebody else, while the page stood open
    answer = alice.post(f"{PAGE}admission/", opened, follow=True)
    assert answer.redirect_chain == [(f"{PAGE}?tab=traffic", 302)]
    assert "The traffic rules hold from now on." in answer.content.decode()
    rules = Admission.objects.get()
    assert (rules.requests_per_minute, rules.queue_limit) == (60, 7)
    assert rules.origins == ["https://app.example", "http://localhost:3000"]
    event = endpoint.events.first()
    assert event
    assert event.who == "alice"
    assert event.message.startswith("Traffic rules: requests a minute no limit → 60, browser origins none → ")
    again = alice.post(f"{PAGE}admission/", form(endpoint), follow=True)
    assert "The rules were so already." in again.content.decode()


def test_an_emptied_limit_is_none(alice: Client, endpoint: Endpoint) -> None:
    endpoint.update_admission(by=None, requests_per_minute=60, concurrent_requests=2)
    alice.post(f"{PAGE}admission/", form(endpoint, requests_per_minute=""))
    rules = Admission.objects.get()
    assert (rules.requests_per_minute, rules.concurrent_requests) == (None, 2)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("requests_per_minute", "0", "must be at least 1 request, or nothing for no limit; you gave 0."),
        ("tokens_per_minute", "many", "must be a whole number from 1 to 1,000,000,000 tokens, or nothing"),
        ("queue_limit", "10001", "must be at most 10,000 requests; you gave 10001."),
        ("queue_seconds", "", "is missing. Give a whole number from 0 to 600 s."),
        ("wake_seconds", "4", "must be at least 5 s; you gave 4."),
        ("max_response_mb", "99999", "must be at most 10,240 MiB; you gave 99999."),
        ("origins", "https://app.example\nevil", "“evil” is no origin."),
        ("origins", "<script>", "“&lt;script&gt;” is no origin."),
    ],
)
def test_an_error_stands_at_its_field_with_what_was_typed(
    alice: Client, endpoint: Endpoint, name: str, given: str, told: str
) -> None:
    answer = alice.post(f"{PAGE}admission/", form(endpoint, **{"concurrent_requests": "5", name: given}))
    page = answer.content.decode()
    assert answer.status_code == 422
    error = page.partition(f'id="id_{name}_error"')[2].partition("</div>")[0]
    assert told in error
    assert f'href="#id_{name}"' in page
    assert 'name="concurrent_requests" value="5"' in page
    assert 'name="was_concurrent_requests" value=""' in page  # sent again, it is still a change
    assert not Admission.objects.exists()


def test_a_viewer_sees_the_rules_and_no_control(client: Client, endpoint: Endpoint) -> None:
    endpoint.update_admission(by=None, requests_per_minute=6000)
    client.force_login(make.member(endpoint.project, "bob", Role.VIEWER))
    page = client.get(PAGE, {"tab": "traffic"}).content.decode()
    assert "<dd>6,000</dd>" in page
    assert "Update the rules" not in page
    assert client.post(f"{PAGE}admission/", form(endpoint, queue_limit="1")).status_code == 403
    assert Admission.objects.get().queue_limit == 100
