"""OpenAI's own clients and LangChain's, unmodified, and curl, against an endpoint of the whole console."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from endpoints.calling import snippets
from endpoints.models import Endpoint, Region
from endpoints.runtimes.base import Observed
from endpoints.runtimes.process import ProcessRuntime
from tests.stack.whole import Stack
from tests.wait import until

pytestmark = pytest.mark.model

NODE = Path(__file__).parent.parent / "node"
NAME = "clients"
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello"}]
LONG = 1500  # tokens: many times what is made while a hang-up is noticed


@pytest.fixture(scope="module")
def served(stack: Stack) -> Iterator[Stack]:
    stack.deploy(NAME, scaling={"max_instances": 1})  # the tests ask its one engine
    yield stack
    stack.delete(NAME)


def client_of(stack: Stack, *, endpoint: str = NAME, key: str | None = None) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{stack.gateway_url}/e/{endpoint}/v1",
        api_key=key or stack.key("inference"),
        max_retries=0,
    )


@pytest.fixture
def client(served: Stack) -> Iterator[openai.OpenAI]:
    with client_of(served) as made:
        yield made


# ── what it serves ───────────────────────────────────────────────────────────────────────────────
def test_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=NAME, messages=ASK, max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.model == NAME
    assert answer.usage
    assert 0 < answer.usage.completion_tokens <= 8


def streamed(client: openai.OpenAI, **more: Any) -> list[ChatCompletionChunk]:
    return list(client.chat.completions.create(model=NAME, messages=ASK, max_tokens=8, stream=True, **more))


def test_a_stream_comes_in_pieces_without_the_usage_nobody_asked_for(client: openai.OpenAI) -> None:
    chunks = streamed(client)
    text = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(text) > 1
    assert all(chunk.choices for chunk in chunks)
    assert not any(chunk.usage for chunk in chunks)


def test_a_stream_ends_with_the_usage_that_was_asked_for(client: openai.OpenAI) -> None:
    last = streamed(client, stream_options={"include_usage": True})[-1]
    assert not last.choices
    assert last.usage
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


def test_a_completion(client: openai.OpenAI) -> None:
    assert client.completions.create(model=NAME, prompt="Once upon a", max_tokens=4).choices[0].text


def test_embeddings_are_refused_with_the_reason(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(model=NAME, input="hello")
    assert "embedding" in str(refused.value).lower()
    assert refused.value.status_code < 502, "a refusal, not a broken engine"


def test_the_models_are_the_endpoint_itself(client: openai.OpenAI) -> None:
    assert NAME in [model.id for model in client.models.list()]


@pytest.fixture
def langchain(served: Stack) -> ChatOpenAI:
    return ChatOpenAI(
        model=NAME,
        base_url=f"{served.gateway_url}/e/{NAME}/v1",
        api_key=SecretStr(served.key("inference")),
        max_completion_tokens=8,
        max_retries=0,
        stream_usage=True,
    )


def test_langchain_invokes(langchain: ChatOpenAI) -> None:
    answer = langchain.invoke("Say hello")
    assert answer.text
    assert answer.usage_metadata
    assert 0 < answer.usage_metadata["output_tokens"] <= 8


def test_langchain_streams(langchain: ChatOpenAI) -> None:
    chunks = list(langchain.stream("Say hello"))
    assert len([chunk for chunk in chunks if chunk.text]) > 1
    [usage] = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert 0 < usage["output_tokens"] <= 8


# ── who leaves ───────────────────────────────────────────────────────────────────────────────────
def only_engine(stack: Stack) -> Observed | None:
    """None while another module's is still ending."""
    engines = [one for one in ProcessRuntime(stack.house.data).observe().values() if one.address]
    return engines[0] if len(engines) == 1 else None


def engine_says(stack: Stack) -> dict[str, float]:
    """The metrics of the endpoint's one engine, by its own word."""
    engine = until(lambda: only_engine(stack), what="one engine")
    text = httpx.get(f"{engine.address}/metrics", trust_env=False, timeout=30).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name.removeprefix("llamacpp:"): sample.value for sample in samples}


def test_a_caller_that_hangs_up_frees_the_engines_slot(served: Stack) -> None:
    until(lambda: engine_says(served)["requests_processing"] == 0, what="the engine to be idle")
    before = engine_says(served)
    wish = {"messages": ASK, "stream": True, "max_tokens": LONG, "ignore_eos": True}
    url, bearer = f"{served.gateway_url}/e/{NAME}/v1/chat/completions", f"Bearer {served.key('inference')}"
    with (
        httpx.Client(trust_env=False, timeout=180) as caller,
        caller.stream("POST", url, json=wish, headers={"Authorization": bearer}) as answer,
    ):
        parts = answer.iter_bytes()  # whose end would be a hang-up
        assert next(parts).startswith(b"data: ")
        until(lambda: engine_says(served)["requests_processing"] == 1, what="the engine to work on it")
    until(lambda: engine_says(served)["requests_processing"] == 0, what="the engine to let go of it")
    worked = engine_says(served)["n_decode_total"] - before["n_decode_total"]
    assert 0 < worked < LONG * 0.8, "it stopped because nobody listened, not because it was done"


# ── what it refuses ──────────────────────────────────────────────────────────────────────────────
def test_a_wrong_key(served: Stack) -> None:
    with client_of(served, key="tir_wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_key_of_another_project(served: Stack) -> None:
    key = served.key("inference", project=other_project(served))
    with client_of(served, key=key) as client, pytest.raises(openai.PermissionDeniedError):
        client.models.list()


def test_an_endpoint_that_is_not_there(served: Stack) -> None:
    with client_of(served, endpoint="nowhere") as client, pytest.raises(openai.NotFoundError) as refused:
        client.models.list()
    assert "nowhere" in str(refused.value)


def test_a_model_that_is_not_there(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=NAME):
        client.chat.completions.create(model="gpt-4", messages=ASK)


def test_a_stopped_endpoint_says_so_and_answers_again_once_started(served: Stack) -> None:
    assert served.api("POST", f"endpoints/{NAME}/stop").status_code == 200
    served.wait_status(NAME, "stopped")
    until(lambda: served.call(NAME, "models").status_code == 409, what="the gateway to know it")
    with client_of(served) as client:
        with pytest.raises(openai.ConflictError, match="stopped"):
            client.chat.completions.create(model=NAME, messages=ASK)
        assert served.api("POST", f"endpoints/{NAME}/start").status_code == 200
        served.wait_status(NAME, "active")
        until(lambda: served.call(NAME, "models").status_code == 200, what="the gateway to know it")
        assert client.chat.completions.create(model=NAME, messages=ASK, max_tokens=2).choices


# ── other ways in ────────────────────────────────────────────────────────────────────────────────
def test_its_own_host_name_leads_to_it(served: Stack) -> None:
    answer = httpx.get(
        f"{served.gateway_url}/v1/models",
        headers={"Host": f"{NAME}.local.localhost", "Authorization": f"Bearer {served.key('inference')}"},
        trust_env=False,
        timeout=180,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["id"] == NAME


def snippet(stack: Stack, label: str) -> str:
    """As the endpoint's page shows it, with this gateway's address."""
    endpoint = Endpoint(name=NAME, region=Region(slug="local"))
    found = next(one["code"] for one in snippets(endpoint) if one["label"] == label)
    address = f"{stack.gateway_url}/e/{NAME}/v1"
    return found.replace(found[found.index("http") : found.index(f"/e/{NAME}/v1") + len(f"/e/{NAME}/v1")], address)


def said(stack: Stack, *command: str, cwd: Path | None = None, **variables: str) -> str:
    environ = os.environ | {"TIR_API_KEY": stack.key("inference")} | variables
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pages_curl_works_as_it_stands(served: Stack) -> None:
    assert json.loads(said(served, "bash", "-c", snippet(served, "curl")))["choices"]


def curl(stack: Stack, *options: str, **wish: Any) -> tuple[list[str], str]:
    """What curl of HTTP/1.0 gets: the lines of the head, and a body that ends with its connection."""
    body, bearer = json.dumps({"messages": ASK, "max_tokens": 8, **wish}), f"Authorization: Bearer {stack.key()}"
    url = f"{stack.gateway_url}/e/{NAME}/v1/chat/completions"
    given = ("-sS", "--fail-with-body", "--http1.0", "--noproxy", "*", "-D", "-", "-H", bearer, "--json", body)
    head, _, got = said(stack, "curl", *given, *options, url).replace("\r\n", "\n").partition("\n\n")
    return head.lower().split("\n"), got


def test_a_client_of_http_1_0_gets_its_json(served: Stack) -> None:
    head, body = curl(served)
    assert json.loads(body)["choices"]
    assert f"content-length: {len(body.encode())}" in head
    assert "connection: close" in head


def test_a_client_of_http_1_0_gets_its_stream_whole_until_the_close(served: Stack) -> None:
    head, body = curl(served, "--no-buffer", stream=True)
    assert not [line for line in head if line.startswith(("transfer-encoding:", "content-length:"))]
    assert "connection: close" in head
    events = body.removesuffix("\n\n").split("\n\n")
    assert len(events) > 2
    assert all(json.loads(event.removeprefix("data: "))["choices"] for event in events[:-1])
    assert events[-1] == "data: [DONE]"


def test_the_pages_python_works_as_it_stands(served: Stack) -> None:
    assert said(served, sys.executable, "-c", snippet(served, "Python")).strip()


@pytest.fixture
def node() -> str:
    """Node with the openai package, which `npm install` in tests/node brings; CI has both."""
    found = shutil.which("node")
    if found and (NODE / "node_modules" / "openai").is_dir():
        return found
    reason = "Node's openai package is not installed: run `npm install --no-save` in tests/node"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def test_the_pages_node_works_as_it_stands(served: Stack, node: str) -> None:
    code = snippet(served, "Node")
    assert said(served, node, "--input-type=module", "-e", code, cwd=NODE).strip()


def test_the_node_package_chats_streams_and_is_refused(served: Stack, node: str) -> None:
    base = f"{served.gateway_url}/e/{NAME}/v1"
    got = json.loads(said(served, node, "client.mjs", cwd=NODE, BASE_URL=base, MODEL=NAME))
    assert got["chat"]
    assert len(got["pieces"]) > 1
    assert got["usage"]["completion_tokens"] > 0
    assert got["refused"]


def other_project(stack: Stack) -> str:
    """A second project of the demo's owner."""
    with stack.browser() as browser:
        if browser.get("/projects/other/endpoints/").status_code == 404:
            page = browser.get("/projects/new/").text
            assert stack.submit(browser, "/projects/new/", page, name="Other").status_code == 200
    return "other"
