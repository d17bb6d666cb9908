"""Where the model comes from: reached for real, each refusal precise and at its field."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings

from endpoints.models import Endpoint, ModelVersion, Secret
from tests.endpoints.wizard.way import Way
from tests.hub import Hub

pytestmark = pytest.mark.django_db
HUGGING = {"kind": "huggingface", "revision": "main", "file": "", "token_secret": ""}


def secret(way: Way, name: str, value: str) -> Secret:
    stored = Secret(project=way.draft.project, name=name)
    stored.put(value)
    stored.save()
    return stored


def test_testing_shows_the_pinned_commit_the_files_and_the_header(way: Way, hub: Hub) -> None:
    way.to("source")
    page = way.post("source", go="test", **HUGGING | {"model_id": "alice/tiny-GGUF"}).content.decode()
    commit = hub.repos["alice/tiny-GGUF"].commit
    headers = {"HX-Request": "true", "HX-Target": "step-fields"}
    asked = {"step": "source", "go": "test"} | HUGGING | {"model_id": "alice/tiny-GGUF"}
    fragment = way.client.post(way.url("source"), asked, headers=headers).content.decode()
    assert 'hx-swap-oob="true"' in fragment, "the panel says at once whether the model fits"
    for seen in (
        commit,
        "tiny-Q4_0.gguf",
        "tiny-F16.gguf",
        "llama, F16, 2 layers",
        "apache-2.0",
        "Reached just now",
    ):
        assert seen in page
    assert commit in way.see("source")


def test_a_hub_model_is_deployed_at_the_commit_that_was_seen(way: Way, hub: Hub) -> None:
    way.to("source")
    way.passes("source", go="summary", **HUGGING | {"model_id": "alice/tiny-GGUF", "file": "tiny-F16.gguf"})
    way.passes("summary", go="deploy", cost="yes")
    source = Endpoint.objects.get().revisions.get().wish.source
    assert (source.revision, source.file) == (hub.repos["alice/tiny-GGUF"].commit, "tiny-F16.gguf")


def test_another_file_of_the_repository_can_be_taken_without_typing(way: Way, hub: Hub) -> None:
    way.to("source")
    answers = HUGGING | {"model_id": "alice/tiny-GGUF", "use_file": "tiny-F16.gguf"}
    assert 'value="tiny-F16.gguf"' in way.post("source", go="test", **answers).content.decode()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model_id": "alice/nothing"}, "model_id"),
        ({"model_id": "no slash"}, "model_id"),
        ({"model_id": ""}, "model_id"),
        ({"model_id": "alice/torch"}, "model_id"),
        ({"model_id": "alice/broken"}, "file"),
        ({"model_id": "alice/tiny-GGUF", "revision": "nowhere"}, "revision"),
        ({"model_id": "alice/tiny-GGUF", "file": "other.gguf"}, "file"),
        ({"model_id": "alice/tiny-GGUF", "file": "model.bin"}, "file"),
        ({"model_id": "alice/tiny-GGUF", "file": "../../x.gguf"}, "file"),
        ({"model_id": "alice/gated"}, "token_secret"),
        ({"model_id": "alice/tiny-GGUF", "token_secret": "gone"}, "token_secret"),
    ],
)
def test_what_is_wrong_stands_at_its_field(way: Way, hub: Hub, changes: dict[str, str], field: str) -> None:
    way.to("source")
    page = way.refused("source", **HUGGING | changes)
    assert f'id="id_{field}_error"' in page
    assert way.fresh().reached == 2


def test_without_the_network_it_says_so_and_goes_no_further(way: Way, hub: Hub) -> None:
    settings.HF_ENDPOINT = "http://127.0.0.1:9"
    way.to("source")
    page = way.refused("source", **HUGGING | {"model_id": "alice/tiny-GGUF"})
    assert "127.0.0.1:9" in page
    assert way.fresh().reached == 2


def test_a_stored_token_opens_a_gated_model_and_is_seen_nowhere(way: Way, hub: Hub) -> None:
    secret(way, "hub-token", "hf_good-token-of-alice")
    way.to("source")
    page = way.post("source", go="test", **HUGGING | {"model_id": "alice/gated", "token_secret": "hub-token"})
    assert "Reached just now" in page.content.decode()
    way.passes("source", go="summary", **HUGGING | {"model_id": "alice/gated", "token_secret": "hub-token"})
    seen = page.content.decode() + way.see("summary")
    way.passes("summary", go="deploy", cost="yes")
    revision = Endpoint.objects.get().revisions.get()
    kept = str(way.fresh().answers) + str(way.fresh().found) + str(revision.spec)
    assert "hf_good" not in seen + kept
    assert revision.wish.source.token_secret == "hub-token"


def test_a_token_stored_on_the_way_is_chosen_and_the_draft_is_kept(way: Way, hub: Hub) -> None:
    way.to("source")
    way.passes("source", go="secret", **HUGGING | {"model_id": "alice/gated"})
    way.client.post(way.act("draft_secret"), {"step": "source", "name": "mine", "value": "hf_good-token-of-alice"})
    page = way.see("source")
    assert '<option value="mine" selected>' in page
    assert 'value="alice/gated"' in page
    assert Secret.objects.get().reveal() == "hf_good-token-of-alice"


def test_a_stored_token_stays_chosen_though_what_was_typed_before_comes_late(way: Way, hub: Hub) -> None:
    way.to("source")
    late = {"beside": "1", "kind": "huggingface", "shown": "huggingface", "model_id": "alice/gated"}
    typed = HUGGING | {"model_id": "alice/gated", "token_secret": ""}
    answer = way.client.post(way.act("draft_secret"), late | {"step": "source", "name": "mine", "value": "hf_x"})
    assert 'value="alice/gated"' in way.see("source"), "what the page hadn't kept yet came with it"
    way.client.post(way.act("panel"), {"step": "source", **typed})
    page = way.client.get(answer.headers["Location"]).content.decode()
    assert '<option value="mine" selected>' in page
    assert 'value="alice/gated"' in page
    assert way.client.get(way.url("source") + "?chosen=nobodys").status_code == 200


@pytest.mark.parametrize(("name", "value"), [("Bad Name", "x"), ("", "x"), ("fine", ""), ("taken", "x")])
def test_a_secret_that_cant_be_stored_is_refused(way: Way, name: str, value: str) -> None:
    secret(way, "taken", "y")
    way.client.post(way.act("draft_secret"), {"step": "source", "name": name, "value": value})
    assert Secret.objects.get().name == "taken"


def test_a_registry_file_that_is_gone_is_found_out_by_testing(way: Way) -> None:
    version = ModelVersion.objects.get()
    (Path(settings.DATA_DIR) / version.path).unlink()
    way.to("source")
    page = way.refused("source", go="test", kind="registry", pick="tiny@1")
    assert "gone from the model store" in page


@pytest.mark.parametrize("pick", ["nothing@1", "tiny@7", "tiny", "@"])
def test_a_model_or_version_that_isnt_there_is_refused(way: Way, pick: str) -> None:
    way.to("source")
    assert "This can't go on yet" in way.refused("source", kind="registry", pick=pick).replace("&#x27;", "'")
