"""Engines that fail, instances that go, callers that leave."""

import asyncio
import contextlib
import errno
from pathlib import Path
from types import SimpleNamespace

import httpx
import orjson
import pytest

from gateway.client import Limits
from tests.gateway.caller import HELLO, announced, caller
from tests.gateway.engine import Engine
from tests.gateway.house import ALICE, House, house, route_to, until

CHAT = "/e/tiny/v1/chat/completions"


def last_event(text: str) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(text.rsplit("data: ", maxsplit=1)[-1])
    return found


@contextlib.asynccontextmanager
async def leaving(gateway: House, *, stream: bool, read: bool):  # type: ignore[no-untyped-def]
    """A caller that hangs up when the block ends, having read the first bytes if `read`."""
    request = asyncio.create_task(_call(gateway, stream=stream, read=(seen := asyncio.Event()) if read else None))
    if read:
        await asyncio.wait_for(seen.wait(), 60)
    yield
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)


async def _call(gateway: House, *, stream: bool, read: asyncio.Event | None) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "stream": stream}
    async with gateway.call.stream("POST", CHAT, json=body) as answer:
        async for _ in answer.aiter_raw():
            if read is not None:
                read.set()


@pytest.mark.parametrize(
    ("behaviour", "stream", "read"),
    [
        ("hang", False, False),
        ("silent first", True, False),
        ("hang", True, False),
        ("hang after first", True, True),
    ],
    ids=["while JSON waits", "before the first chunk", "before the engine's head", "in mid-stream"],
)
async def test_a_caller_that_leaves_frees_the_engine_and_counts_as_499(
    gateway: House, engine: Engine, behaviour: str, stream: bool, read: bool
) -> None:
    engine.behaviour = behaviour
    async with leaving(gateway, stream=stream, read=read):
        await until(lambda: engine.open == 1, "the engine to be asked")
    await until(lambda: engine.open == 0, "the engine to be let go")
    assert engine.hung_up == 1
    [record] = await gateway.settled()
    assert record.status_class == "499"
    assert gateway.app.gateway.balancer.in_flight == {}
    assert (record.completion_tokens > 0) == read  # what was delivered counts, as an estimate
    assert record.estimated == read


@pytest.mark.parametrize("behaviour", ["die", "cut json"])
async def test_an_engine_lost_before_its_answer_is_a_502(gateway: House, engine: Engine, behaviour: str) -> None:
    engine.behaviour = behaviour
    answer = await gateway.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_lost")
    [record] = await gateway.settled()
    assert record.status_class == "5xx"


async def test_what_an_engine_may_have_begun_is_not_asked_of_another(tmp_path: Path) -> None:
    engines = Engine(behaviour="die"), Engine(behaviour="die")
    async with engines[0] as one, engines[1] as two, house(tmp_path, one, two) as gateway:
        assert (await gateway.ask()).status_code == 502
        assert len(one.seen) + len(two.seen) == 1


async def test_a_stream_cut_halfway_ends_with_an_error_and_no_done(gateway: House, engine: Engine) -> None:
    engine.behaviour = "cut stream"
    answer = await gateway.ask(stream=True)
    assert answer.status_code == 200
    assert "word0" in answer.text
    assert "[DONE]" not in answer.text
    assert last_event(answer.text)["error"]["code"] == "upstream_lost"  # type: ignore[index]
    [record] = await gateway.settled()
    assert record.status_class == "5xx"
    assert record.estimated
    assert record.completion_tokens > 0


async def test_an_engines_bare_error_line_arrives_as_one_event_and_no_done(gateway: House, engine: Engine) -> None:
    engine.behaviour = "error event"
    answer = await gateway.ask(stream=True)
    assert last_event(answer.text)["error"]["message"] == "out of memory"  # type: ignore[index]
    assert answer.text.count('"error"') == 1
    assert "[DONE]" not in answer.text
    [record] = await gateway.settled()
    assert record.status == 500


async def test_an_error_before_the_first_token_is_a_real_status(gateway: House, engine: Engine) -> None:
    engine.behaviour = "error first"
    answer = await gateway.ask(stream=True)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "context too long"


async def test_a_stream_without_any_event_is_a_failure(gateway: House, engine: Engine) -> None:
    engine.behaviour = "empty"
    answer = await gateway.ask(stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "empty_stream")


async def test_an_engines_own_error_passes_in_the_whole_shape(gateway: House, engine: Engine) -> None:
    engine.behaviour = "refuse"
    answer = await gateway.ask()
    assert answer.status_code == 501
    assert answer.json()["error"] == {
        "message": "no such thing",
        "type": "upstream_error",
        "param": None,
        "code": 501,
    }


async def test_an_engine_that_still_loads_says_when_to_come_again(gateway: House, engine: Engine) -> None:
    engine.behaviour = "loading"
    answer = await gateway.ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["error"]["message"] == "Loading model"


async def test_silence_in_a_stream_is_filled_with_heartbeats(tmp_path: Path, engine: Engine) -> None:
    engine.behaviour = "silent first"
    async with house(tmp_path, engine, limits=Limits(heartbeat_seconds=0.02)) as gateway:
        body = {"messages": [], "stream": True}
        async with gateway.call.stream("POST", CHAT, json=body) as answer:
            parts = answer.aiter_text()
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert (await anext(parts)).startswith(": heartbeat\n\n")
            engine.hold.set()
            rest = "".join([part async for part in parts])
        assert rest.endswith("data: [DONE]\n\n")


async def test_an_engine_that_stays_silent_is_given_up(tmp_path: Path, engine: Engine) -> None:
    engine.behaviour = "hang"
    limits = Limits(heartbeat_seconds=0.02, silence_seconds=0.06)
    async with house(tmp_path, engine, limits=limits) as gateway:
        answer = await gateway.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
        await until(lambda: engine.open == 0, "the engine to be let go")


async def test_a_killed_instance_fails_no_other_request(tmp_path: Path) -> None:
    async with Engine() as one, Engine() as two, house(tmp_path, one, two) as gateway:
        warm = await asyncio.gather(*(gateway.ask() for _ in range(20)))
        assert {answer.status_code for answer in warm} == {200}
        assert one.seen
        assert two.seen
        await one.stop()
        answers = await asyncio.gather(*(gateway.ask() for _ in range(40)))
        assert [answer.status_code for answer in answers] == [200] * 40
        assert gateway.app.gateway.balancer.in_flight == {}


async def test_with_the_only_instance_gone_it_says_so_and_recovers_at_once(tmp_path: Path) -> None:
    async with Engine() as engine, house(tmp_path, engine) as gateway:
        await engine.stop()
        answer = await gateway.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_instance_reachable")
        assert answer.headers["retry-after"] == "2"
        async with Engine(port=engine.port):
            assert (await gateway.ask()).status_code == 200


async def test_a_waiting_connection_that_was_closed_meanwhile_costs_no_request(
    gateway: House, engine: Engine
) -> None:
    await gateway.ask()
    await engine.stop()
    async with Engine(port=engine.port) as again:
        assert (await gateway.ask()).status_code == 200
        assert len(again.seen) == 1


async def test_a_caller_that_stops_reading_stops_the_engine_too(tmp_path: Path) -> None:
    whole = 400_000  # words, some 60 MB of events
    async with Engine(words=whole) as engine, house(tmp_path, engine) as gateway:
        url = gateway.call.base_url
        _, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
        body = orjson.dumps({"messages": [], "stream": True})
        head = ["Host: x", f"Authorization: Bearer {ALICE}", f"Content-Length: {len(body)}", "", ""]
        writer.write("\r\n".join([f"POST {CHAT} HTTP/1.1", *head]).encode() + body)
        before = -1
        while engine.sent == 0 or engine.sent != before:  # until nothing moves any more
            before = engine.sent
            await asyncio.sleep(0.3)
        assert 0 < engine.sent < 20_000_000
        writer.transport.abort()
        [record] = await gateway.settled()
        assert record.status == 499


async def test_a_body_that_ends_after_the_table_changed_goes_where_the_endpoint_is_now(tmp_path: Path) -> None:
    async with Engine() as old, Engine() as new, house(tmp_path, old) as gateway:
        for change, status in (({"instances": route_to(new).instances}, 200), ({"desired": "stopped"}, 409)):
            async with caller(gateway) as line:
                await line.send(announced(len(HELLO)))
                await until(
                    lambda: any(one.call is not None for one in gateway.server.lines), "the head to be read"
                )
                gateway.route(**change)
                await line.send(HELLO)
                assert (await line.answer()).status == status
        assert old.seen == []  # another endpoint's instance may have its address by now
        assert len(new.seen) == 1


async def test_a_request_under_way_keeps_its_route_when_the_table_changes(gateway: House, engine: Engine) -> None:
    engine.behaviour = "hang after first"
    task = asyncio.create_task(gateway.ask(stream=True))
    await until(lambda: engine.open == 1, "the engine to be asked")
    gateway.route(instances=(), desired="stopped")
    engine.hold.set()
    answer: httpx.Response = await task
    assert answer.text.endswith("data: [DONE]\n\n")
    assert route_to().name == "tiny"


async def test_a_gateway_without_a_file_left_says_so_and_blames_no_instance(
    gateway: House, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    loop = asyncio.get_running_loop()
    full = SimpleNamespace(create_task=loop.create_task, call_soon=loop.call_soon, create_connection=refuse)
    monkeypatch.setattr(gateway.app.gateway.pool, "loop", full)
    answer = await gateway.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gateway_busy")
    assert not gateway.app.gateway.balancer.is_ejected("tiny-0")
    assert gateway.app.gateway.balancer.in_flight == {}
    monkeypatch.undo()
    assert (await gateway.ask()).status_code == 200
