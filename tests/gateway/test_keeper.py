"""Beside traffic: fresh routes, counts written once the database is back, a tick, an honest health."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import keeper
from gateway.contract import Away
from gateway.routes import RouteTable
from monitoring.histogram import Histogram
from tests.gateway.engine import Engine
from tests.gateway.house import KEYS, House, house, route_to, until


def total(gateway: House) -> int:
    return sum(row.requests for row in gateway.store.minutes.values())


async def test_a_ring_changes_the_routes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "REFRESH_SECONDS", 3600.0)  # nothing but the ring
    async with house(tmp_path) as gateway:
        gateway.store.table = RouteTable([route_to(desired="stopped")], KEYS)
        gateway.store.rings.put_nowait(None)
        await until(lambda: gateway.app.gateway.table.routes["tiny"].desired == "stopped", "the ring to be heard")
        assert (await gateway.ask()).status_code == 409


async def test_a_revoked_key_is_refused_within_two_seconds_without_any_ring(gateway: House) -> None:
    assert keeper.REFRESH_SECONDS < 2  # how long the machine takes beside other tests is not for this one to say
    assert (await gateway.ask()).status_code == 200
    gateway.store.table = RouteTable(gateway.app.gateway.table.routes.values(), {})
    await until(lambda: not gateway.app.gateway.table.keys)
    assert (await gateway.ask()).status_code == 401


async def test_a_key_is_known_from_its_first_call_on(gateway: House) -> None:
    gateway.app.gateway.take_table(RouteTable(gateway.app.gateway.table.routes.values(), {}))  # as read before it
    assert (await gateway.ask()).status_code == 200


async def test_many_unknown_keys_at_once_cost_few_reads(gateway: House) -> None:
    reads = 0
    refresh = gateway.app.keeper.refresh

    async def counted() -> None:
        nonlocal reads
        reads += 1
        await refresh()

    gateway.app.keeper.refresh = counted  # type: ignore[method-assign]
    wrong, began = {"authorization": "Bearer tir_wrong"}, time.monotonic()
    answers = await asyncio.gather(*(gateway.call.get("/e/tiny/v1/models", headers=wrong) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {401}
    assert reads < 10 + (time.monotonic() - began) / keeper.LOOK_SECONDS  # of a busy machine


async def test_with_the_database_away_traffic_goes_on_and_nothing_is_lost(gateway: House) -> None:
    gateway.store.away = True
    for _ in range(3):
        assert (await gateway.ask()).status_code == 200
    own = gateway.app.keeper
    await own.refresh()
    await own.flush()
    await own.publish()
    answer = await gateway.call.get("/healthz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["flush"]["unwritten_rows"] > 0
    gateway.store.away = False
    await own.refresh()
    await own.flush()
    await own.remember(own.telemetry.flush)
    await own.publish()
    assert total(gateway) == 3
    assert gateway.store.used.keys() == {1}
    answer = await gateway.call.get("/healthz")
    assert (answer.json()["status"], answer.json()["flush"]["unwritten_rows"]) == ("ok", 0)


async def test_what_is_done_beside_traffic_is_done_again_after_any_failure(
    gateway: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []

    def failing(name: str) -> Callable[..., Any]:
        async def fail(*_: object) -> Any:
            monkeypatch.undo()
            failed.append(name)
            raise ValueError("a row that nobody can read")

        return fail

    monkeypatch.setattr(gateway.store, "load", failing("load"))
    await until(lambda: failed == ["load"], "the routes to be read")
    assert gateway.app.keeper.routes.problem
    await until(lambda: not gateway.app.keeper.routes.problem, "the routes to be read again")
    monkeypatch.setattr(gateway.store, "publish", failing("publish"))
    await until(lambda: failed == ["load", "publish"], "a tick")
    ticks = len(gateway.store.ticks)
    await until(lambda: len(gateway.store.ticks) > ticks, "the next tick")


async def test_a_repeated_flush_counts_nothing_twice(gateway: House) -> None:
    await gateway.ask()
    await gateway.app.keeper.flush()
    flushes = gateway.store.flushes
    await gateway.app.keeper.flush()
    assert gateway.store.flushes == flushes
    await gateway.ask()
    await gateway.app.keeper.flush()
    assert total(gateway) == 2


async def test_until_routes_were_read_it_is_not_ready_and_says_why(gateway: House) -> None:
    gateway.app.keeper.routes.last = None
    gateway.app.keeper.routes.failed(Away("PostgreSQL: connection refused"))
    status, body = gateway.app.keeper.health()
    assert status == 503
    assert "connection refused" in body["reason"]


async def test_while_draining_it_says_so(gateway: House) -> None:
    gateway.app.keeper.draining = True
    assert gateway.app.keeper.health()[1]["reason"] == "The gateway is draining."


async def test_a_spool_that_fails_is_said(gateway: House) -> None:
    gateway.app.gateway.meter.spool.failed("No space left on device")
    body = (await gateway.call.get("/healthz")).json()
    assert body["spool"]["problem"] == "No space left on device"
    assert body["status"] == "degraded"


async def test_the_tick_says_what_goes_on_now(gateway: House, engine: Engine) -> None:
    await gateway.ask()
    await gateway.ask(stream=True)
    await gateway.ask(model="other")
    gateway.app.gateway.balancer.in_flight["tiny-0"] = 2
    await gateway.app.keeper.publish()
    del gateway.app.gateway.balancer.in_flight["tiny-0"]
    tick = gateway.store.ticks[-1]
    assert tick["source"] == gateway.app.gateway.meter.totals.source
    now = tick["endpoints"]["5"]
    assert now["in_flight"] == {"tiny-0": 2}
    window = now["window"]
    assert (window["seconds"], window["requests"], window["ok"], window["client_errors"]) == (10, 3, 2, 1)
    assert window["prompt_tokens"] == 22
    assert Histogram.from_json(window["latency"]).count == 3
    assert Histogram.from_json(window["ttft"]).count == 1
    assert now["minute"]["at"] % 60 == 0


async def test_the_tick_says_who_waits_where_nothing_runs_yet(gateway: House) -> None:
    gateway.route(instances=(), awaited=True, asleep=True)
    async with asyncio.TaskGroup() as callers:
        callers.create_task(gateway.ask())
        await until(lambda: gateway.app.gateway.dispatch.queued == {5: 1}, "it to wait")
        await gateway.app.keeper.publish()
        gateway.route(desired="stopped")
    now = gateway.store.ticks[-1]["endpoints"]["5"]
    assert (now["in_flight"], now["queued"], now["window"]["requests"]) == ({}, 1, 0)


async def test_an_endpoint_without_traffic_or_load_is_not_in_the_tick(gateway: House) -> None:
    await gateway.app.keeper.publish()
    assert gateway.store.ticks[-1]["endpoints"] == {}


async def test_the_last_counts_are_written_when_it_ends(tmp_path: Path, engine: Engine) -> None:
    async with house(tmp_path, engine) as gateway:
        await gateway.ask()
    assert total(gateway) == 1
    assert [tick for tick in gateway.store.ticks if "left" in tick] == gateway.store.ticks[-1:], "its last word"


async def test_healthz_takes_no_posts(gateway: House) -> None:
    assert (await gateway.call.post("/healthz")).status_code == 405
