"""Every refusal: a status, OpenAI's shape, a code, and words that help."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from gateway.client import Limits
from gateway.routes import digest
from tests.gateway.engine import Engine
from tests.gateway.house import ALICE, CHARLIE, KEYS, NARROW, House, house

CHAT = "/e/tiny/v1/chat/completions"


def error(answer: httpx.Response, status: int, code: str) -> str:
    """Check shape, status and code; the message is for the test to judge."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    message: str = body["error"]["message"]
    assert message
    return message


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        (f"Basic {ALICE}", "missing_api_key"),
        ("Bearer tir_wrong000_x", "invalid_api_key"),
        (f"Bearer {ALICE}x", "invalid_api_key"),
        (f"Bearer {digest(ALICE)}", "invalid_api_key"),
    ],
)
async def test_no_or_a_wrong_key_is_refused(gateway: House, header: str, code: str) -> None:
    answer = await gateway.call.post(CHAT, json={}, headers={"authorization": header})
    error(answer, 401, code)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert gateway.records == []


async def test_an_expired_key_is_refused_and_told_so(gateway: House) -> None:
    gone = replace(KEYS[digest(ALICE)], expires_at=datetime.now(UTC) - timedelta(seconds=1))
    gateway.app.gateway.table.keys[digest(ALICE)] = gone
    assert "expired" in error(await gateway.ask(), 401, "expired_api_key")


async def test_without_a_key_nobody_learns_which_endpoints_exist(gateway: House) -> None:
    answers = [
        await gateway.call.post(f"/e/{name}/v1/chat/completions", headers={"authorization": ""})
        for name in ("tiny", "nowhere")
    ]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize(("secret", "code"), [(CHARLIE, "other_project"), (NARROW, "missing_scope")])
async def test_a_key_that_may_not_call_is_refused(gateway: House, secret: str, code: str) -> None:
    answer = await gateway.call.post(CHAT, json={}, headers={"authorization": f"Bearer {secret}"})
    error(answer, 403, code)
    assert gateway.records == []


async def test_an_unknown_endpoint_is_404(gateway: House) -> None:
    assert "'nowhere'" in error(await gateway.ask("/e/nowhere/v1/chat/completions"), 404, "endpoint_not_found")


async def test_an_unknown_path_lists_what_there_is(gateway: House) -> None:
    message = error(await gateway.ask("/e/tiny/v1/images"), 404, "unknown_url")
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models"):
        assert path in message


async def test_a_path_outside_any_endpoint_is_404_without_a_key(gateway: House) -> None:
    error(await gateway.call.get("/favicon.ico", headers={"authorization": ""}), 404, "unknown_url")


async def test_the_wrong_method_says_which_is_right(gateway: House) -> None:
    answer = await gateway.call.get(CHAT)
    error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


async def test_another_model_is_404_and_says_which_are_served(gateway: House) -> None:
    message = error(await gateway.ask(model="gpt-9"), 404, "model_not_found")
    assert "'gpt-9'" in message
    assert "tiny" in message


async def test_stopped_says_by_whom_and_since_when(gateway: House) -> None:
    at = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    gateway.route(desired="stopped", state="stopped", state_since=at, state_by="alice@example.com")
    message = error(await gateway.ask(), 409, "endpoint_stopped")
    assert "stopped by alice@example.com at 2026-03-01 09:30 UTC" in message
    [record] = await gateway.settled()
    assert (record.status, record.status_class) == (409, "4xx")


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("deploying", "endpoint_not_ready"),
        ("idle", "endpoint_scaled_to_zero"),
        ("failed", "endpoint_failed"),
        ("degraded", "endpoint_not_ready"),
    ],
)
async def test_while_none_is_ready_it_says_when_to_come_again(gateway: House, state: str, code: str) -> None:
    gateway.route(state=state, instances=(), phase="Model loading")
    answer = await gateway.ask()
    error(answer, 503, code)
    assert int(answer.headers["retry-after"]) > 0


async def test_a_deployment_under_way_says_its_phase(gateway: House) -> None:
    gateway.route(state="deploying", instances=(), phase="Model loading")
    assert "deploying: Model loading" in error(await gateway.ask(), 503, "endpoint_not_ready")


async def test_an_instance_that_is_not_ready_gets_nothing(gateway: House, engine: Engine) -> None:
    [one] = gateway.app.gateway.table.routes["tiny"].instances
    gateway.route(instances=(replace(one, ready=False),), state="deploying")
    error(await gateway.ask(), 503, "endpoint_not_ready")
    assert engine.seen == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"messages": [}', "line 1, column 15 (character 14)"),
        (b'{\n "a": 1,\n "b" 2}', "line 3"),
        (b"", "no body"),
        (b"   ", "no body"),
        (b"[1]", "not a list"),
        (b'"x"', "not a string"),
        (b"null", "not null"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
    ],
)
async def test_invalid_json_says_where(gateway: House, engine: Engine, body: bytes, says: str) -> None:
    assert says in error(await gateway.call.post(CHAT, content=body), 400, "invalid_json")
    assert engine.seen == []


async def test_json_nested_too_deep_is_refused_and_breaks_nothing(gateway: House) -> None:
    for name, code in ((b"messages", "invalid_json"), (b"model", "invalid_value")):
        body = b'{"%b":' % name + b"[" * 900 + b"]" * 900 + b"}"
        error(await gateway.call.post(CHAT, content=body), 400, code)
    assert (await gateway.ask()).status_code == 200


@pytest.mark.parametrize(("name", "value"), [("stream", "yes"), ("stream", 1), ("stream_options", [1])])
async def test_a_wrong_stream_setting_names_the_field(gateway: House, name: str, value: object) -> None:
    answer = await gateway.call.post(CHAT, json={name: value})
    error(answer, 400, "invalid_value")
    assert answer.json()["error"]["param"] == name


async def test_ten_megabytes_of_json_get_a_clear_413(gateway: House, engine: Engine) -> None:
    answer = await gateway.ask(padding="x" * 10 * 2**20)
    assert "8 MiB" in error(answer, 413, "request_too_large")
    assert engine.seen == []
    assert (await gateway.ask()).status_code == 200
    assert [record.status for record in gateway.records] == [413, 200]


async def test_a_chunked_body_without_a_length_meets_the_same_limit(gateway: House) -> None:
    async def parts() -> object:
        for _ in range(10):
            yield b"x" * 2**20

    error(await gateway.call.post(CHAT, content=parts()), 413, "request_too_large")  # type: ignore[arg-type]


async def test_a_client_that_asks_first_is_told_before_it_sends(gateway: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ALICE}\r\n"
        f"content-length: {10 * 2**20}\r\nexpect: 100-continue\r\n\r\n".encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert head.startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_body_that_dribbles_in_is_given_up(tmp_path: Path, engine: Engine) -> None:
    async with house(tmp_path, engine, limits=Limits(body_seconds=0.05)) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ALICE}\r\n"
            "content-length: 100\r\n\r\n{".encode()
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_compressed_body_is_refused_and_not_misread(gateway: House) -> None:
    answer = await gateway.call.post(CHAT, content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    error(answer, 415, "unsupported_encoding")


@pytest.mark.parametrize("value", ["a b", "x" * 129, "id;set-cookie=a", "%0d%0aset-cookie:a=b", "ünï"])
async def test_a_request_id_that_is_none_is_replaced(gateway: House, engine: Engine, value: str) -> None:
    headers = {b"x-request-id": value.encode("latin-1")}
    answer = await gateway.call.get("/e/tiny/v1/models", headers=headers)
    if answer.status_code == 200:
        assert answer.headers["x-request-id"] != value
        assert value.encode("latin-1").decode("latin-1") not in engine.heads[-1]
    else:
        assert answer.status_code == 400


@pytest.mark.parametrize("ending", [b"\r\n", b"\n", b"\r"])
async def test_line_breaks_in_a_header_inject_nothing(gateway: House, engine: Engine, ending: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        b"GET /e/tiny/v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer "
        + ALICE.encode()
        + b"\r\nx-request-id: abc"
        + ending
        + b" x-evil: 1"
        + ending
        + b"x-worse: 2\r\n\r\n"
    )
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"x-evil" not in head
    assert b"x-worse" not in head
    for sent in engine.heads:
        assert "x-evil" not in sent
        assert "x-worse" not in sent


async def test_a_path_with_line_breaks_reaches_no_engine(gateway: House, engine: Engine) -> None:
    answer = await gateway.call.get("/e/tiny/v1/models%0d%0ax-evil:%201")
    error(answer, 404, "unknown_url")
    assert engine.seen == []


async def test_no_cross_origin_is_invited(gateway: House) -> None:
    answer = await gateway.call.options(CHAT, headers={"origin": "https://evil.example"})
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_deleted_endpoint_is_gone(gateway: House) -> None:
    gateway.route(desired="deleted")
    error(await gateway.ask(), 404, "endpoint_not_found")
