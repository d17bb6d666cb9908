"""Bodies that are kept: never without being asked for, never unredacted, never for everybody."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.roles import Role
from endpoints.models import Endpoint, Event, Secret
from gateway import remembered
from gateway.bodies import LONGEST, Bodies
from gateway.passport import Passport
from monitoring import bodies
from monitoring.models import BodySampling, RequestRecord
from monitoring.redact_bodies import NoPattern, Redaction, compiled
from tests import make
from tests.gateway.requests import ended
from tests.monitoring import measured

OURS = "tir_01234567_abcdefghijklmnopqrstuvwxyz"
PRIVATE = [
    "alice@example.com",
    "Ä.Öster+x@bücher.example.co.uk",
    "+91 98765 43210",
    "(030) 1234-5678",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "378282246310005",
    OURS,
    "hf_abcdefghijklmnopqrstuv",
    "sk-proj-abcdefghijklmnop1234",
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl",
]


def kept(body: Any, *patterns: str, secrets: Any = ()) -> str:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Redaction(patterns, secrets).body(raw)


@pytest.mark.parametrize("private", PRIVATE)
def test_what_says_who_somebody_is_is_taken_out_wherever_it_stands(private: str) -> None:
    nested = json.dumps({"to": [private]})
    body = {
        "messages": [
            {"role": "user", "content": f"Write to {private}, please."},
            {"content": [{"text": private}]},
        ],
        "tools": [{"function": {"arguments": nested}}],
        private: 1,
    }
    escaped = json.dumps(body).replace("@", "\\u0040").encode()
    for raw in (body, escaped):
        text = kept(raw)
        assert private not in text
        assert private.partition("@")[0].strip("+()") not in text
        assert "Write to [redacted], please." in text


@pytest.mark.parametrize(
    "plain", ["In 2026 we sold 1,250 of them for 12.5 %.", "gpt-4o at 10:30 on 2026-11-28", "a@b", "3 x 4 = 12"]
)
def test_plain_words_and_small_numbers_stay(plain: str) -> None:
    assert json.loads(kept({"content": plain}))["content"] == plain


def test_numbers_count_as_their_digits_and_a_moment_stays() -> None:
    found = json.loads(kept({"card": 4111111111111111, "n": 12, "x": 1.5, "yes": True, "created": 1764044622}))
    assert found == {"card": "[redacted]", "n": 12, "x": 1.5, "yes": True, "created": 1764044622}


def test_own_patterns_and_the_projects_secrets_are_taken_out_too() -> None:
    text = kept({"a": "case PAT-123456", "b": "my hunter22 password"}, r"PAT-\d{6}", secrets=["hunter22"])
    assert json.loads(text) == {"a": "case [redacted]", "b": "my [redacted] password"}


def test_a_picture_is_not_kept() -> None:
    text = kept({"image_url": {"url": "data:image/png;base64," + "A" * 5000}})
    assert "AAAA" not in text
    assert "image/png" in text


def test_a_streams_words_are_put_together_before_they_are_looked_at() -> None:
    deltas = ["Write to ali", "ce@exam", "ple.com or 98765", "43210", "1."]
    events: list[Any] = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in deltas]
    call = {"index": 0, "function": {"name": "send"}}
    events += [{"choices": [{"delta": {"tool_calls": [call]}}]}]
    for part in ('{"to": "bob@ex', 'ample.com"}'):
        events.append({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}}]})
    events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": 3}, 7, {"choices": [None]}]
    raw = (
        b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
        + b": ping\n\ndata: [DONE]\n\n"
    )
    (choice,) = json.loads(Redaction().stream(raw))["stream"]
    assert choice["content"] == "Write to [redacted] or [redacted]."
    assert choice["tool_calls"]["0"] == {"name": "send", "arguments": '{"to":"[redacted]"}'}
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("raw", [b"", b"alice@example.com", b"--boundary\r\nalice", b'{"a": "ali', b"\xff\xfe"])
def test_of_what_is_no_json_nothing_is_kept(raw: bytes) -> None:
    assert Redaction().body(raw) == ""


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "a*", ".{0,5}|", "(a{1000}){1000}"])
def test_a_pattern_that_can_not_be_used_is_refused_with_the_reason(pattern: str) -> None:
    with pytest.raises(NoPattern, match="“"):
        compiled(pattern)


def test_no_pattern_and_no_text_holds_up_the_writer() -> None:
    began = time.process_time()
    kept({"a": "a" * 60_000 + "!", "b": "1 " * 30_000, "c": "@" * 60_000}, r"(a+)+$", r"(a|aa)+b")
    assert time.process_time() - began < 5


# ── from a gateway to the database ───────────────────────────────────────────────────────────────
@pytest.fixture
def endpoint(transactional_db: None) -> Endpoint:
    return make.endpoint(ready=1, name="tiny")


def told(
    of: Endpoint, request: bytes = b'{"user": "bob@example.com"}', answer: bytes = b'{"text": "hi"}'
) -> Passport:
    said = Bodies()
    said.came(request)
    said.went(answer)
    return Passport(ended(endpoint=of.pk, revision_id=of.serving_revision_id, key_id=None, bodies=said))


def test_bodies_are_stored_redacted_where_the_endpoint_wishes_it(endpoint: Endpoint) -> None:
    Secret.store(endpoint.project, "token", "s3cr3t-value", by=make.user("alice"))
    bodies.keep(endpoint, one_in=1, patterns=["hi"], by=make.user("alice"))
    remembered.write([told(endpoint, b'{"user": "bob@example.com", "x": "s3cr3t-value"}')])
    row = RequestRecord.objects.get()
    assert json.loads(row.request_body) == {"user": "[redacted]", "x": "[redacted]"}
    assert json.loads(row.answer_body) == {"text": "[redacted]"}


def test_without_the_endpoints_wish_nothing_is_stored_whatever_a_gateway_still_holds(endpoint: Endpoint) -> None:
    remembered.write([told(endpoint)])
    row = RequestRecord.objects.get()
    assert (row.request_body, row.answer_body) == ("", "")


def test_a_body_too_long_is_only_counted(endpoint: Endpoint) -> None:
    bodies.keep(endpoint, one_in=1, patterns=[], by=make.user("alice"))
    remembered.write([told(endpoint, b'"' + b"a" * LONGEST + b'"', b"<html>")])
    row = RequestRecord.objects.get()
    assert row.request_body == "[65,538 bytes, longer than is kept]"
    assert row.answer_body == "[6 bytes, no JSON, which is not kept]"


def test_to_stop_removes_what_was_kept_and_is_an_event(endpoint: Endpoint) -> None:
    alice = make.user("alice")
    bodies.keep(endpoint, one_in=10, patterns=["x+"], by=alice)
    remembered.write([told(endpoint)])
    bodies.stop(endpoint, by=alice)
    row = RequestRecord.objects.get()
    assert (row.request_body, row.answer_body) == ("", "")
    bodies.stop(endpoint, by=alice)
    said = list(Event.objects.filter(endpoint=endpoint, kind__contains="bodies").values_list("message", flat=True))
    assert sorted(said) == [
        "Keeps no bodies any more; those of 1 request were removed.",
        "Keeps the bodies of one request in 10, 1 redaction pattern of its own.",
    ]


# ── who sees and who decides ─────────────────────────────────────────────────────────────────────
def as_(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page(of: Endpoint, name: str, **more: Any) -> str:
    return reverse(f"monitoring:{name}", kwargs={"project": of.project.slug, "name": of.name, **more})


def test_bodies_are_shown_to_those_who_operate_and_to_nobody_else(endpoint: Endpoint) -> None:
    record = measured.request(endpoint, request_body='{"q": "<b>why</b>"}', answer_body='{"a": "because"}')
    address = page(endpoint, "request", record=record.pk)
    operator = as_(make.member(endpoint.project, "dora", Role.DEVELOPER)).get(address).content.decode()
    viewer = as_(make.member(endpoint.project, "bob", Role.VIEWER)).get(address).content.decode()
    assert "because" in operator
    assert "&lt;b&gt;why" in operator
    assert "because" not in viewer
    assert "shown to those who operate" in viewer
    listed = as_(make.user("alice")).get(page(endpoint, "requests")).content.decode()
    assert "because" not in listed


def test_an_operator_opts_in_and_out_on_a_page(endpoint: Endpoint) -> None:
    alice = as_(make.user("alice"))
    address = page(endpoint, "bodies")
    assert "Bodies are not kept." in alice.get(page(endpoint, "requests")).content.decode()
    wrong = alice.post(address, {"one_in": "0", "patterns": "ok\n(?=x)"})
    assert wrong.status_code == 422
    text = wrong.content.decode()
    assert "Give 1 or more; 1 keeps every one." in text
    assert "(?=x)” is no regular expression" in text
    assert "ok\n(?=x)</textarea>" in text
    assert not BodySampling.objects.exists()
    assert alice.post(address, {"one_in": "50", "patterns": " PAT-[0-9]+ \n\nPAT-[0-9]+"}).status_code == 302
    found = BodySampling.objects.get()
    assert (found.one_in, found.patterns) == (50, ["PAT-[0-9]+"])
    assert "one request in 50" in alice.get(page(endpoint, "requests")).content.decode()
    assert 'value="50"' in alice.get(address).content.decode()
    alice.post(page(endpoint, "stop-bodies"))
    assert not BodySampling.objects.exists()


def test_a_program_opts_in_reads_and_opts_out(endpoint: Endpoint) -> None:
    root = f"/api/v1/endpoints/{endpoint.name}"
    headers = {"Authorization": f"Bearer {make.key(endpoint.project, 'manage')[1]}"}

    def put(**body: Any) -> Any:
        return Client().put(f"{root}/bodies", json.dumps(body), "application/json", headers=headers)

    assert Client().get(f"{root}/bodies", headers=headers).json() == {
        "kept": False,
        "one_in": None,
        "patterns": [],
    }
    assert put(one_in=7, patterns=["x+"]).json() == {"kept": True, "one_in": 7, "patterns": ["x+"]}
    for body, field in (({"one_in": 0}, "one_in"), ({"one_in": 1, "patterns": ["("]}, "patterns")):
        answer = put(**body)
        assert (answer.status_code, set(answer.json()["error"]["fields"])) == (422, {field})
    assert put().json()["one_in"] == 100
    assert put(one_in=1, sampel=2).status_code == 422
    measured.request(endpoint, "r-1", request_body="{}", answer_body="[]")
    found = Client().get(f"{root}/requests/r-1", headers=headers).json()
    assert (found["request_body"], found["answer_body"]) == ("{}", "[]")
    assert Client().delete(f"{root}/bodies", headers=headers).json()["kept"] is False
    found = Client().get(f"{root}/requests/r-1", headers=headers).json()
    assert (found["request_body"], found["answer_body"]) == (None, None)
