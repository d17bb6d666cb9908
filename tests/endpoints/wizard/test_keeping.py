"""Nothing that was typed is lost: Back, reload, errors, a second tab, a change of mind."""

from __future__ import annotations

import pytest
from django.test import Client

from endpoints.wizard import drafts
from tests import make, model_files
from tests.endpoints.wizard.conftest import register
from tests.endpoints.wizard.way import Way

pytestmark = pytest.mark.django_db

TYPED = [
    ("basics", "name", "my-name"),
    ("llm", "max_sequence_length", "1024"),
    ("llm", "top_k", "7"),
    ("scaling", "max_instances", "3"),
    ("scaling", "requests_per_month", "12345"),
    ("environment", "max_workers", "9"),
]


@pytest.mark.parametrize(("step", "field", "value"), TYPED)
def test_back_and_reload_keep_what_was_typed(way: Way, step: str, field: str, value: str) -> None:
    way.to(step)
    way.passes(step, go="back", **{field: value})
    assert f'value="{value}"' in way.see(step)


@pytest.mark.parametrize(("step", "field", "value"), TYPED)
def test_a_later_step_keeps_an_earlier_one(way: Way, step: str, field: str, value: str) -> None:
    way.to(step)
    way.passes(step, **{field: value})
    assert f'value="{value}"' in way.see(step)


def test_a_second_tab_loses_no_other_step(way: Way) -> None:
    way.to("scaling")
    stale = way.fresh()
    way.passes("scaling", max_instances="4")
    drafts.keep_typed(stale, "llm", {"top_k": "9"})
    assert 'value="4"' in way.see("scaling")
    assert 'value="9"' in way.see("llm")


def test_a_new_login_finds_the_step_as_it_was_typed(way: Way) -> None:
    way.to("llm")
    way.client.post(way.act("panel"), {"step": "llm", "top_k": "11"})
    way.client.logout()
    turned_away = way.post("llm", top_k="11")
    assert turned_away.headers["Location"].endswith(f"?next={way.url('llm')}")
    way.client.force_login(way.draft.user)
    assert 'value="11"' in way.see("llm")


def test_an_earlier_change_drops_what_no_longer_works_and_undo_brings_it_back(way: Way) -> None:
    register("short", model_files.gguf({"llama.context_length": 256}))
    way.to("source")
    way.passes("source", pick="tiny@1")
    way.passes("machine")
    way.passes("llm", max_sequence_length="4096")
    way.passes("source", pick="short@1")
    page = way.see("llm")
    assert "Max sequence length “4096” was dropped" in page
    assert 'value="4096"' not in page.partition('id="step-form"')[2]
    way.client.post(way.act("undo"))
    assert 'value="4096"' in way.see("llm")
    assert way.fresh().answers["source"]["model"] == "tiny"
    assert not way.fresh().dropped


def test_unanswered_settings_follow_the_model_in_silence(way: Way) -> None:
    register("short", model_files.gguf({"llama.context_length": 256}))
    way.to("source")
    way.passes("source", pick="short@1", go="summary")
    assert 'value="256"' in way.see("llm")
    assert not way.fresh().dropped


def test_the_other_source_keeps_its_answers(way: Way) -> None:
    way.to("source")
    way.post("source", go="back", kind="huggingface", model_id="alice/tiny-GGUF", file="tiny.gguf")
    way.post("source", go="back", kind="registry", pick="tiny@1")
    assert 'value="alice/tiny-GGUF"' in way.see("source")


def test_an_unfinished_draft_is_offered_before_a_new_one(way: Way) -> None:
    address = f"/projects/{way.draft.project.slug}/endpoints/new/"
    way.to("llm")
    page = way.client.get(address).content.decode()
    assert "Continue your draft" in page
    assert way.client.get(way.act("resume")).headers["Location"] == way.url("llm")
    assert way.client.post(address).headers["Location"] != way.url("basics")
    way.client.post(way.act("discard"))
    assert way.client.get(way.url("llm")).status_code == 404


def test_the_panel_judges_what_is_typed_and_keeps_it(way: Way) -> None:
    way.to("llm")
    page = way.client.post(way.act("panel"), {"step": "llm", "max_sequence_length": "4096", "batch_size": "2"})
    text = page.content.decode()
    assert "Fits" in text
    assert "₹3.20" in text
    assert "₹2,336.00" in text
    assert "Quick estimate by formula" in text
    assert 'value="4096"' in way.see("llm")


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("billing", 403), ("developer", 404)])
def test_others_have_no_way_into_a_draft(way: Way, client: Client, role: str, status: int) -> None:
    person = make.member(way.draft.project, "bob", role)
    client.force_login(person)
    for address in (way.url("basics"), way.act("resume")):
        assert client.get(address).status_code == status
    for address in (way.act("panel"), way.act("undo"), way.act("draft_secret"), way.act("discard")):
        assert client.post(address).status_code == status


def test_a_stranger_finds_nothing(way: Way, client: Client) -> None:
    client.force_login(make.user("charlie"))
    assert client.get(f"/projects/{way.draft.project.slug}/endpoints/new/").status_code == 404
    assert client.get(way.url("basics")).status_code == 404
    assert client.post(way.act("panel")).status_code == 404
