"""What nobody should send, by HTTP to the whole console: each a clear error, and nothing half-made."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.stack.whole import Stack
from tests.wait import until

pytestmark = pytest.mark.model

NAME = "sturdy"
# section, field, a value out of its range
OUT_OF_RANGE: list[tuple[str, str, Any]] = [
    ("", "name", "Not A Name"),
    ("", "name", "x" * 41),
    ("", "region", "the-moon"),
    ("", "instance_type", "c6i.tiny"),
    ("", "instance_type", "p4d.xlarge"),
    ("", "method", "own-container"),
    ("", "framework", "vllm"),
    ("source", "version", 99),
    ("source", "kind", "floppy"),
    ("llm", "max_sequence_length", 127),
    ("llm", "max_sequence_length", 8193),
    ("llm", "batch_size", 65),
    ("llm", "temperature", 2.1),
    ("llm", "top_k", 0),
    ("llm", "top_p", 1.1),
    ("llm", "quantization", "qat"),
    ("scaling", "min_instances", 11),
    ("scaling", "max_instances", 101),
    ("scaling", "target_concurrency", 0),
    ("scaling", "scale_up_threshold", 96),
    ("scaling", "scale_down_delay", 59),
    ("scaling", "billing_model", "free"),
    ("environment", "max_workers", 65),
    ("environment", "log_level", "LOUD"),
    ("environment", "variables", {"1BAD": "x"}),
    ("environment", "secrets", {"TOKEN": "no-such-secret"}),
]


@pytest.fixture(scope="module")
def served(stack: Stack) -> Iterator[Stack]:
    """A console with one endpoint that must come through all of this unharmed."""
    stack.deploy(NAME)
    yield stack
    stack.wait_status(NAME, "active")
    stack.delete(NAME)


@pytest.fixture(autouse=True)
def _nothing_half_made(served: Stack) -> Iterator[None]:
    before = served.names()
    yield
    assert served.names() == before


def refused(stack: Stack, body: Any) -> dict[str, Any]:
    """The problem that POST /endpoints answers."""
    answer = stack.api("POST", "endpoints", body)
    assert answer.status_code == 422, answer.text
    problem: dict[str, Any] = answer.json()["error"]
    assert problem["message"]
    return problem


@pytest.mark.parametrize(("section", "field", "value"), OUT_OF_RANGE)
def test_every_field_out_of_its_range_is_named(served: Stack, section: str, field: str, value: Any) -> None:
    body = served.wish("wrong")
    if section:
        body[section] = body.get(section, {}) | {field: value}
    else:
        body[field] = value
    fields = refused(served, body)["fields"]
    assert any(name.split(".")[-1].startswith(field) for name in fields), fields
    assert all(text for texts in fields.values() for text in texts)


def test_a_name_that_is_taken(served: Stack) -> None:
    fields = refused(served, served.wish(NAME))["fields"]
    assert "taken" in fields["name"][0]


def test_a_field_that_is_not_known_is_not_dropped(served: Stack) -> None:
    assert "colour" in refused(served, served.wish("wrong", colour="blue"))["fields"]


def hub_source(model: str) -> dict[str, Any]:
    return {"kind": "huggingface", "model_id": model, "revision": "main"}


def test_a_gguf_that_is_none(served: Stack) -> None:
    problem = refused(served, served.wish("wrong", source=hub_source("tests/not-a-model")))
    said = json.dumps(problem["fields"])
    assert "GGUF" in said, said


def test_a_model_that_no_memory_holds(served: Stack) -> None:
    problem = refused(served, served.wish("wrong", source=hub_source("tests/giant")))
    said = json.dumps(problem["fields"], ensure_ascii=False)
    assert "memory" in said, said


def test_a_repository_that_is_not_there(served: Stack) -> None:
    said = json.dumps(refused(served, served.wish("wrong", source=hub_source("tests/nothing")))["fields"])
    assert "tests/nothing" in said, said


@pytest.mark.parametrize("body", ["{", "[]", '"text"', "null", "\xff", '{"name": NaN}'])
def test_rest_answers_what_is_no_object_with_an_error(served: Stack, body: str) -> None:
    answer = httpx.post(
        f"{served.console_url}/api/v1/endpoints",
        content=body.encode("latin-1"),
        headers={"Authorization": f"Bearer {served.key()}", "Content-Type": "application/json"},
        trust_env=False,
        timeout=180,
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]["message"]


# ── the wizard, as a browser without scripts posts it ────────────────────────────────────────────
def test_the_wizard_shows_the_error_at_the_field_and_keeps_what_was_typed(served: Stack) -> None:
    with served.browser() as browser:
        page = served.submit(browser, "/projects/demo/endpoints/new/", browser.get("/account/").text)
        path = page.url.path
        wrong = served.submit(browser, path, page.text, step="basics", go="next", name=NAME, region="local")
        assert wrong.status_code == 422
        assert 'id="id_name_error"' in wrong.text
        assert f'value="{NAME}"' in wrong.text
        right = served.submit(browser, path, page.text, step="basics", go="summary", name="fine", region="local")
        llm = path.replace("/basics/", "/llm/")
        assert right.status_code == 200
        page = browser.get(llm)
        values = {"max_sequence_length": "1", "batch_size": "0", "temperature": "9", "top_k": "999", "top_p": "7"}
        wrong = served.submit(browser, llm, page.text, step="llm", go="next", **values)
        assert wrong.status_code == 422
        for field in values:
            assert f'id="id_{field}_error"' in wrong.text, field
        served.submit(browser, path.replace("/basics/", "/discard/"), page.text)


# ── the gateway ──────────────────────────────────────────────────────────────────────────────────
def post(stack: Stack, body: bytes, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{stack.gateway_url}/e/{NAME}/v1/chat/completions",
        content=body,
        headers={"Authorization": f"Bearer {stack.key()}", "Content-Type": "application/json"} | headers,
        trust_env=False,
        timeout=180,
    )


def test_ten_megabytes_are_refused_whole(served: Stack) -> None:
    text = "x" * 10_000_000
    answer = post(served, json.dumps({"messages": [{"role": "user", "content": text}]}).encode())
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe", b'{"messages": "hello"}'])
def test_what_is_no_request_is_a_400(served: Stack, body: bytes) -> None:
    answer = post(served, body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "change", [{"max_tokens": -5}, {"max_tokens": "many"}, {"temperature": "hot"}, {"stream": "perhaps"}, {"n": 0}]
)
def test_a_setting_that_makes_no_sense_is_refused_or_ignored_but_breaks_nothing(
    served: Stack, change: dict[str, Any]
) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2} | change
    answer = post(served, json.dumps(body).encode())
    assert answer.status_code < 500, answer.text


def raw(port: int, head: str) -> str:
    """The first line of what a server answers to these very bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=180) as line:
        line.sendall(head.encode("latin-1"))
        return line.recv(4096).decode("latin-1").partition("\r\n")[0]


def test_a_header_can_not_smuggle_another(served: Stack) -> None:
    """Neither into an instance nor back into the answer."""
    head = (
        f"GET /e/{NAME}/v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key()}\r\n"
        "X-Request-Id: a\nSet-Cookie: evil=1\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.house.gateway), timeout=180) as line:
        line.sendall(head.encode())
        answer = until(lambda: line.recv(65536), what="an answer").decode("latin-1")
    assert "\r\nset-cookie" not in answer.lower()


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: -1",
    ],
)
def test_a_body_of_two_lengths_is_refused(served: Stack, framing: str) -> None:
    head = f"POST /e/{NAME}/v1/chat/completions HTTP/1.1\r\nHost: x\r\n{framing}\r\nConnection: close\r\n\r\n"
    assert raw(served.house.gateway, head + "0\r\n\r\n").split()[1] in {"400", "401"}


def test_a_name_with_a_line_break_is_only_a_name(served: Stack) -> None:
    url = f"{served.console_url}/projects/demo/endpoints/%0d%0aSet-Cookie:%20a=b/"
    answer = httpx.get(url, trust_env=False, timeout=180)
    assert "set-cookie" not in {name for name in answer.headers if "a=b" in answer.headers[name]}
    assert answer.status_code in (302, 404)
