"""Test Connection to the Hub says what is there, or exactly what is wrong."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from endpoints.sources import Found, SourceProblem, network, source_for
from endpoints.sources.huggingface import HuggingFaceSource
from tests.endpoints.sources.conftest import LARGE, REPOS, SMALL, Ask, problem
from tests.hub import Fault, Hub


def refused(source: HuggingFaceSource) -> SourceProblem:
    with pytest.raises(SourceProblem) as caught:
        source.check()
    return caught.value


def test_a_branch_is_pinned_to_its_commit(ask: Ask) -> None:
    assert ask("lab/tiny-GGUF").check().revision == REPOS["lab/tiny-GGUF"].commit


def test_a_pinned_commit_stays_what_it_is(ask: Ask) -> None:
    commit = REPOS["lab/tiny-GGUF"].commit
    assert ask("lab/tiny-GGUF", revision=commit).check().revision == commit


def test_no_revision_means_the_default_branch(ask: Ask) -> None:
    assert ask("lab/tiny-GGUF", revision="").check().revision == REPOS["lab/tiny-GGUF"].commit


def test_the_models_of_a_repository_are_offered_and_one_is_preferred(ask: Ask) -> None:
    found = ask("lab/tiny-GGUF").check()
    assert [choice.path for choice in found.choices] == ["tiny.Q4_K_M.gguf", "tiny.Q8_0.gguf"]
    assert found.default_file == "tiny.Q4_K_M.gguf"
    assert found.license == "apache-2.0"
    assert not found.gated


def test_the_facts_are_those_of_the_chosen_file(ask: Ask) -> None:
    found = ask("lab/tiny-GGUF", file="tiny.Q8_0.gguf").check()
    assert found.default_file == "tiny.Q8_0.gguf"
    assert found.facts is not None
    assert found.facts.file_size == len(SMALL)


def test_only_a_piece_of_a_large_file_is_read(ask: Ask, hub: Hub) -> None:
    ask("lab/tiny-GGUF").check()
    ranges = [request.headers.get("Range") for request in hub.asked("/cdn/")]
    assert ranges == [f"bytes=0-{min(len(LARGE), 1 << 20) - 1}"]


def test_a_proxy_that_ignores_ranges_does_no_harm(ask: Ask, hub: Hub) -> None:
    hub.fault(Fault("/cdn/", whole=True, times=9))
    source = ask("lab/tiny-GGUF")
    assert source.read("tiny.Q8_0.gguf", 4, 100) == SMALL[4:104]


def test_a_read_beyond_the_end_is_empty(ask: Ask) -> None:
    assert ask("lab/tiny-GGUF").read("tiny.Q8_0.gguf", len(SMALL), 10) == b""


def test_shards_are_one_model(ask: Ask) -> None:
    found = ask("lab/split-GGUF").check()
    assert found.default_file == "big-00001-of-00002.gguf"
    assert len(found.choices) == 1
    assert found.facts is not None
    assert found.facts.parameter_count == 64 * 3 + 64 * 64 + 64 + 64 * 64


def test_what_was_found_survives_a_json_column(ask: Ask) -> None:
    found = ask("lab/split-GGUF").check()
    assert Found.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("model_id", ["", "a/b/c", "white space/model", "lab/..", "lab/-bad", "a" * 99, "../etc"])
def test_a_malformed_id_is_said_so_without_asking_the_hub(ask: Ask, hub: Hub, model_id: str) -> None:
    problem = refused(ask(model_id))
    assert (problem.code, problem.field) == ("malformed_id", "model_id")
    assert hub.requests == []


def test_a_pasted_address_is_answered_with_the_id_in_it(ask: Ask) -> None:
    problem = refused(ask("https://huggingface.co/lab/tiny-GGUF/tree/main"))
    assert "Did you mean lab/tiny-GGUF?" in problem.message


def test_no_such_model_may_also_be_a_private_one(ask: Ask) -> None:
    for name in ("lab/nothing", "lab/private"):
        problem = refused(ask(name))
        assert (problem.code, problem.field) == ("not_found", "model_id")
        assert "or it is private" in problem.message


def test_a_token_without_access_to_a_private_model_is_said_so(ask: Ask) -> None:
    problem = refused(ask("lab/private", token="hf_stranger"))
    assert problem.code == "not_found"
    assert "the token has no access" in problem.message


def test_a_token_opens_a_private_model(ask: Ask) -> None:
    assert ask("lab/private", token="hf_member").check().default_file == "tiny.gguf"


def test_a_gated_model_says_where_to_accept_its_terms(ask: Ask, hub: Hub) -> None:
    problem = refused(ask("lab/gated"))
    assert (problem.code, problem.field) == ("gated", "token_secret")
    assert f"Accept its terms at {hub.url}/lab/gated" in problem.message


def test_a_token_without_access_to_a_gated_model_is_said_so(ask: Ask) -> None:
    problem = refused(ask("lab/gated", token="hf_stranger"))
    assert problem.code == "gated"
    assert "The token's owner has no access" in problem.message


def test_a_gated_model_with_access_is_found_and_marked(ask: Ask) -> None:
    assert ask("lab/gated", token="hf_member").check().gated


def test_a_wrong_token_is_told_from_a_wrong_model(ask: Ask) -> None:
    problem = refused(ask("lab/tiny-GGUF", token="hf_expired"))
    assert (problem.code, problem.field) == ("bad_token", "token_secret")


def test_no_message_and_no_repr_holds_the_token(ask: Ask) -> None:
    source = ask("lab/tiny-GGUF", token="hf_expired")
    problem = refused(source)
    assert "hf_expired" not in problem.message + repr(problem) + repr(source)


def test_the_machines_own_token_is_never_used(ask: Ask, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_member")
    assert refused(ask("lab/private")).code == "not_found"
    assert all("Authorization" not in request.headers for request in hub.requests)


def test_the_token_stays_with_the_hub_when_a_file_lies_elsewhere(ask: Ask, hub: Hub) -> None:
    ask("lab/private", token="hf_member").check()
    assert any("Authorization" in request.headers for request in hub.asked("/resolve/"))
    assert all("Authorization" not in request.headers for request in hub.asked("/cdn/"))


def test_no_such_branch(ask: Ask) -> None:
    problem = refused(ask("lab/tiny-GGUF", revision="v9"))
    assert (problem.code, problem.field) == ("no_revision", "revision")
    assert "v9" in problem.message


def test_no_such_file_lists_those_there_are(ask: Ask) -> None:
    problem = refused(ask("lab/tiny-GGUF", file="other.gguf"))
    assert (problem.code, problem.field) == ("no_file", "file")
    assert "tiny.Q4_K_M.gguf" in problem.message


def test_a_repository_without_gguf_says_what_it_has(ask: Ask) -> None:
    problem = refused(ask("lab/tiny"))
    assert (problem.code, problem.field) == ("no_model", "model_id")
    assert "model.safetensors" in problem.message


def test_a_file_that_only_claims_to_be_gguf_is_found_out(ask: Ask) -> None:
    problem = refused(ask("lab/broken"))
    assert (problem.code, problem.field) == ("not_gguf", "file")
    assert "web page" in problem.message


def test_no_network_names_the_address_that_was_tried(ask: Ask) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can, and every connection is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        problem = refused(ask("lab/tiny-GGUF", url=url))
    assert (problem.code, problem.passing) == ("no_network", True)
    assert url in problem.message


def test_a_hub_that_does_not_answer_times_out(ask: Ask) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        source = ask("lab/tiny-GGUF", url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        problem = refused(replace(source, timeout=0.3))
    assert (problem.code, problem.passing) == ("timeout", True)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_the_hubs_own_trouble_is_not_the_users(ask: Ask, hub: Hub, status: int) -> None:
    hub.fault(Fault("/api/", status=status))
    problem = refused(ask("lab/tiny-GGUF"))
    assert (problem.code, problem.field, problem.passing) == ("hub_error", "", True)
    assert str(status) in problem.message


def test_too_many_requests_says_when_to_try_again(ask: Ask, hub: Hub) -> None:
    hub.fault(Fault("/api/", status=429, headers={"Retry-After": "17"}))
    problem = refused(ask("lab/tiny-GGUF"))
    assert problem.code == "rate_limited"
    assert "17 seconds" in problem.message


def test_a_token_that_may_not_read_is_said_so(ask: Ask, hub: Hub) -> None:
    hub.fault(Fault("/api/", status=403))
    assert refused(ask("lab/tiny-GGUF", token="hf_member")).code == "forbidden"


def test_a_hotels_login_page_is_not_taken_for_the_hub(ask: Ask, hub: Hub) -> None:
    hub.fault(Fault("/api/", garbage=True))
    problem = refused(ask("lab/tiny-GGUF"))
    assert problem.code == "hub_error"
    assert "Check the Hub's address" in problem.message


def test_an_unknown_kind_of_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceProblem, match="tape"):
        source_for({"kind": "tape"}, store=tmp_path, token=None, hub="")


def test_an_answer_without_end_is_not_kept_in_memory(ask: Ask, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MOST", 10_000)
    hub.fault(Fault("/api/models", body=b" " * 1_000_000))
    assert problem(ask("lab/tiny-GGUF").check)[:2] == ("too_long", "url")
    assert ask("lab/tiny-GGUF").check().facts


def test_a_hub_that_is_switched_off_is_not_asked(ask: Ask, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert problem(ask("lab/tiny-GGUF").check)[0] == "offline"
    assert not hub.requests
