"""Callers that wait, over real sockets: for a turn while instances are busy, for an endpoint that sleeps."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.client import Limits
from gateway.routes import Admission, Upstream
from tests.gateway.caller import STREAMED, asked, caller
from tests.gateway.engine import Engine
from tests.gateway.house import House, house, until

ASLEEP: dict[str, Any] = {"instances": (), "state": "idle", "awaited": True, "asleep": True}


def up(*engines: Engine) -> dict[str, Any]:
    """An endpoint that came up with these."""
    ports = [engine.port for engine in engines]
    instances = tuple(Upstream(f"tiny-{n}", "127.0.0.1", port, revision_id=7) for n, port in enumerate(ports))
    return {"instances": instances, "state": "active", "asleep": False}


async def all_of(calls: list["asyncio.Task[httpx.Response]"]) -> list[httpx.Response]:
    async with asyncio.timeout(60):
        return list(await asyncio.gather(*calls))


async def test_fifty_callers_wake_an_endpoint_once_and_none_is_lost(tmp_path: Path) -> None:
    async with Engine(pause=0.005) as engine, house(tmp_path, capacity_per_instance=4, **ASLEEP) as gateway:
        calls = [asyncio.create_task(gateway.ask()) for _ in range(50)]
        await until(lambda: gateway.app.gateway.dispatch.queued == {5: 50}, "all to wait")
        assert gateway.store.woken == [5]
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, engine.open)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        gateway.route(**up(engine))
        answers = await all_of(calls)
        watching.cancel()
        assert {answer.status_code for answer in answers} == {200}
        assert all("x-queue-ms" in answer.headers and answer.headers["x-cold-start"] == "1" for answer in answers)
        assert most <= 4, "they were not all let in at once"
        assert len(await gateway.settled(50)) == 50
        after = await gateway.ask()
        assert {"x-queue-ms", "x-cold-start"}.isdisjoint(after.headers)


async def test_a_streams_caller_hears_heartbeats_while_the_endpoint_wakes(tmp_path: Path) -> None:
    limits = Limits(heartbeat_seconds=0.05)
    async with Engine() as engine, house(tmp_path, limits=limits, **ASLEEP) as gateway, caller(gateway) as line:
        await line.send(asked(body=STREAMED))
        head = await line.head()
        assert (head.status, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert await line.chunk() == b": heartbeat\n\n"
        gateway.route(**up(engine))
        parts = []
        while part := await line.chunk():
            parts.append(part)
        assert b"".join(parts).endswith(b"data: [DONE]\n\n")


async def test_who_waited_too_long_for_a_waking_endpoint_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with house(tmp_path, admission=Admission(wake_seconds=0.1), **ASLEEP) as gateway:
        answer = await gateway.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "cold_start_timeout")
        assert int(answer.headers["retry-after"]) > 0
        assert gateway.app.gateway.dispatch.queued == {}


async def test_the_queue_ends_somewhere(tmp_path: Path) -> None:
    async with house(tmp_path, admission=Admission(queue_limit=2), **ASLEEP) as gateway:
        waiting = [asyncio.create_task(gateway.ask()) for _ in range(2)]
        await until(lambda: gateway.app.gateway.dispatch.queued == {5: 2}, "two to wait")
        answer = await gateway.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        gateway.route(desired="stopped", awaited=False, asleep=False)
        assert [one.status_code for one in await all_of(waiting)] == [409, 409]


async def test_who_leaves_the_queue_is_counted_and_takes_nobodys_turn(tmp_path: Path) -> None:
    async with Engine() as engine, house(tmp_path, **ASLEEP) as gateway:
        async with caller(gateway) as line:
            await line.send(asked(body=STREAMED))
            await until(lambda: gateway.app.gateway.dispatch.queued == {5: 1}, "one to wait")
        await until(lambda: gateway.app.gateway.dispatch.queued == {}, "it to leave")
        [record] = await gateway.settled()
        assert record.status == 499
        gateway.route(**up(engine))
        assert (await gateway.ask()).status_code == 200
        assert len(engine.seen) == 1


async def test_busy_instances_are_waited_for_in_order(tmp_path: Path) -> None:
    async with Engine(behaviour="hang") as engine, house(tmp_path, engine, capacity_per_instance=1) as gateway:
        dispatch, calls = gateway.app.gateway.dispatch, [asyncio.create_task(gateway.ask(user="0"))]
        await until(lambda: len(engine.seen) == 1, "the first to be carried")
        for waiting in (1, 2):  # one after the other, for connections come in any order
            calls.append(asyncio.create_task(gateway.ask(user=str(waiting))))
            await until(lambda many=waiting: dispatch.queued == {5: many}, "it to wait")
        assert len(engine.seen) == 1
        engine.behaviour = "good"
        engine.hold.set()
        assert [one.status_code for one in await all_of(calls)] == [200] * 3
        assert [request["user"] for request in engine.seen] == ["0", "1", "2"]


@pytest.mark.parametrize("behaviour", ["die", "loading"])
async def test_an_instance_that_only_fails_rests_while_another_answers(tmp_path: Path, behaviour: str) -> None:
    async with Engine(behaviour=behaviour) as bad, Engine() as good, house(tmp_path, bad, good) as gateway:
        for _ in range(60):
            await gateway.ask()
        failed = len(bad.seen)
        answers = [await gateway.ask() for _ in range(20)]
        assert [answer.status_code for answer in answers].count(200) >= 19, "one at most was a probe"
        assert len(bad.seen) - failed <= 1
        assert gateway_rests(gateway)


def gateway_rests(gateway: House) -> bool:
    return gateway.app.gateway.balancer.is_ejected("tiny-0")
