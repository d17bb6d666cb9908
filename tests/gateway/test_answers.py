"""What a caller gets, and what is counted for it."""

import gc
from pathlib import Path

import orjson
import pytest

from gateway.line import Line
from gateway.routes import Admission
from gateway.upstream import Connection
from tests.gateway.engine import Engine
from tests.gateway.house import House, house, until


def events(text: str) -> list[str]:
    return [part.removeprefix("data: ") for part in text.split("\n\n") if part]


async def test_a_chat_passes_and_its_tokens_count(gateway: House) -> None:
    answer = await gateway.ask()
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "word word word "
    [record] = await gateway.settled()
    assert (record.status, record.prompt_tokens, record.completion_tokens) == (200, 11, 3)
    assert (record.endpoint_id, record.revision_id, record.key_id) == (5, 7, 1)
    assert not record.estimated
    assert record.latency_us > 0
    assert record.ttft_us is None
    assert record.bytes_out == len(answer.content)


async def test_a_stream_passes_whole_without_the_usage_nobody_asked_for(gateway: House) -> None:
    answer = await gateway.ask(stream=True)
    found = events(answer.text)
    assert [orjson.loads(one)["choices"][0]["delta"]["content"] for one in found[:-1]] == [
        "word0 ",
        "word1 ",
        "word2 ",
    ]
    assert found[-1] == "[DONE]"
    assert "usage" not in answer.text
    [record] = await gateway.settled()
    assert (record.prompt_tokens, record.completion_tokens, record.estimated) == (11, 3, False)
    assert record.ttft_us is not None
    assert 0 < record.ttft_us <= record.latency_us


async def test_a_stream_shows_its_usage_to_who_asked(gateway: House) -> None:
    answer = await gateway.ask(stream=True, stream_options={"include_usage": True})
    assert orjson.loads(events(answer.text)[-2])["usage"]["prompt_tokens"] == 11


async def test_a_stream_is_kept_from_being_buffered_on_its_way(gateway: House) -> None:
    headers = (await gateway.ask(stream=True)).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"


async def test_an_engines_own_headers_stay_behind(gateway: House) -> None:
    headers = (await gateway.ask()).headers
    assert {"x-engine", "set-cookie", "server", "access-control-allow-origin"}.isdisjoint(headers)


async def test_models_are_answered_by_the_engine(gateway: House) -> None:
    answer = await gateway.call.get("/e/tiny/v1/models")
    assert answer.json()["data"] == [{"id": "tiny"}]
    [record] = await gateway.settled()
    assert (record.prompt_tokens, record.estimated) == (0, False)


async def test_the_host_name_reaches_the_endpoint_too(gateway: House) -> None:
    host = {"host": f"tiny.local.localhost:{gateway.port}"}
    answer = await gateway.call.post("/v1/chat/completions", json={"messages": []}, headers=host)
    assert answer.status_code == 200


async def test_a_host_of_another_region_reaches_nothing(gateway: House) -> None:
    host = {"host": f"tiny.moon.localhost:{gateway.port}"}
    answer = await gateway.call.post("/v1/chat/completions", json={"messages": []}, headers=host)
    assert answer.status_code == 404


async def test_an_answer_without_usage_is_estimated_and_never_free(gateway: House, engine: Engine) -> None:
    engine.behaviour = "no usage"
    await gateway.ask()
    await gateway.ask(stream=True)
    whole, stream = await gateway.settled(2)
    assert whole.estimated
    assert stream.estimated
    assert whole.completion_tokens == 4  # 15 characters
    assert stream.completion_tokens == 5  # 18 characters
    assert whole.prompt_tokens == stream.prompt_tokens > 0


async def test_defaults_fill_what_a_call_leaves_open_and_nothing_else(gateway: House, engine: Engine) -> None:
    gateway.route(defaults={"temperature": 0.3, "top_k": 7})
    await gateway.ask(temperature=0)
    assert engine.seen[-1]["temperature"] == 0
    assert engine.seen[-1]["top_k"] == 7


async def test_an_alias_is_served_under_the_name_the_engine_knows(gateway: House, engine: Engine) -> None:
    gateway.route(aliases=("gpt-mini",))
    assert (await gateway.ask(model="gpt-mini")).status_code == 200
    assert engine.seen[-1]["model"] == "tiny"


async def test_the_key_never_reaches_the_engine(gateway: House, engine: Engine) -> None:
    await gateway.ask()
    assert "authorization" not in engine.heads[-1].lower()
    assert "tir_" not in engine.heads[-1]


async def test_a_request_id_goes_through_to_the_engine_and_back(gateway: House, engine: Engine) -> None:
    answer = await gateway.call.get("/e/tiny/v1/models", headers={"x-request-id": "trace-42"})
    assert answer.headers["x-request-id"] == "trace-42"
    assert "x-request-id: trace-42" in engine.heads[-1]


async def test_connections_to_an_engine_are_used_again(gateway: House, engine: Engine) -> None:
    for _ in range(5):
        await gateway.ask()
    assert engine.connections == 1


async def test_an_engine_that_hangs_up_after_a_stream_costs_nobody_an_answer(
    gateway: House, engine: Engine
) -> None:
    engine.behaviour = "hang up after streams"
    for _ in range(3):
        assert (await gateway.ask(stream=True)).status_code == 200
        assert (await gateway.ask()).status_code == 200


async def test_a_connection_that_outlives_a_stream_is_used_again(
    gateway: House, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.pool.DOUBT_SECONDS", 0.01)
    for _ in range(2):
        assert (await gateway.ask(stream=True)).status_code == 200
        await until(lambda: gateway.app.gateway.pool.idle, "the connection to be trusted")
    assert engine.connections == 1


async def test_an_engine_that_closes_after_each_answer_is_served_too(gateway: House, engine: Engine) -> None:
    engine.behaviour = "close"
    assert [(await gateway.ask()).status_code for _ in range(3)] == [200, 200, 200]
    assert engine.connections == 3


async def test_health_says_ready_without_a_key(gateway: House) -> None:
    answer = await gateway.call.get("/e/tiny/health", headers={"authorization": ""})
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_health_says_what_it_waits_for(gateway: House) -> None:
    gateway.route(instances=(), state="deploying")
    answer = await gateway.call.get("/e/tiny/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "deploying"})


async def test_healthz_is_ready_once_routes_are_loaded(gateway: House) -> None:
    answer = await gateway.call.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["endpoints"] == 1


async def test_nothing_is_held_after_answers(gateway: House) -> None:
    await gateway.ask()
    await gateway.ask(stream=True)
    assert gateway.app.gateway.balancer.in_flight == {}


async def test_a_connection_that_ended_leaves_nothing_to_look_for(gateway: House) -> None:
    """Garbage that only a search through everything finds is a pause for all, and grows with each connection."""

    def connections() -> int:
        return sum(type(one) in (Line, Connection) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = connections()
        gateway.app.gateway.pool.idle_seconds = 0.0
        await gateway.ask(stream=True)  # after which its engine is hung up on
        await gateway.call.aclose()
        await until(lambda: connections() <= before, "all to be gone")
    finally:
        gc.enable()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_longer_than_the_endpoint_allows_is_cut_and_said(tmp_path: Path, stream: bool) -> None:
    admission = Admission(max_response_bytes=2000)
    async with Engine(words=500, pause=0.002) as engine, house(tmp_path, engine, admission=admission) as gateway:
        answer = await gateway.ask(stream=stream)
        if stream:
            assert answer.status_code == 200
            *_, last = [line for line in answer.text.split("\n\n") if line]
            assert "response_too_large" in last
            assert "[DONE]" not in answer.text
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "response_too_large")
        [record] = await gateway.settled()
        assert record.status == 502
        await until(lambda: engine.open == 0, "the engine to be let go")
        assert not gateway.app.gateway.balancer.troubled, "it did nothing wrong"
        engine.words = 3
        assert (await gateway.ask(stream=stream)).status_code == 200
