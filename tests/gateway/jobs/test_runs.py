"""From submission to result, through a running gateway and the real queue."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from accounts import tokens
from accounts.models import ApiKey
from endpoints.models import Endpoint
from gateway.contract import Away
from gateway.jobs import door as jobs_door
from gateway.jobs import queue, runner
from gateway.jobs.models import AsyncRequest, State
from gateway.routes import Admission, RouteTable
from gateway.totals import UNBILLED
from monitoring.models import KeyTraffic
from tests import make
from tests.gateway.engine import Engine
from tests.gateway.house import until
from tests.gateway.jobs.harness import ASK, CHAT, STATUS, Door, World, door, in_database, only, world
from tir_console.up.ports import free_port

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def here(transactional_db: None) -> World:
    return world()


@pytest.fixture
async def gate(here: World, tmp_path: Path, engine: Engine) -> AsyncIterator[Door]:
    async with door(tmp_path, here, engine) as running:
        yield running


async def billed() -> list[tuple[int | None, int, int]]:
    """(key, requests, completion tokens) of billing's evidence."""
    return await in_database(lambda: list(KeyTraffic.objects.values_list("key", "requests", "completion_tokens")))


async def test_a_request_is_queued_run_on_the_usual_path_and_kept(gate: Door, here: World, engine: Engine) -> None:
    answer = await gate.call.post(CHAT, json={**ASK, "webhook_url": "https://hook.example.com/x"})
    assert answer.status_code == 202
    accepted = answer.json()
    assert (accepted["status"], accepted["estimated_completion_time"]) == ("queued", None)
    assert accepted["request_id"].startswith("async-req-")
    found = await gate.reached(accepted["request_id"], "succeeded")
    assert found["response"]["usage"] == {"prompt_tokens": 11, "completion_tokens": 3}
    assert (found["error"], found["endpoint"], found["path"]) == (None, "tiny", "/v1/chat/completions")
    assert found["webhook"]["state"] == "waiting"
    (asked,) = engine.seen
    assert "webhook_url" not in asked
    assert (asked["model"], asked["top_k"]) == ("tiny", 50)  # the endpoint's defaults hold
    assert f"x-request-id: {accepted['request_id']}" in engine.heads[0]
    assert [(record.status, record.key_id) for record in gate.records] == [(200, UNBILLED)]
    assert await billed() == [(here.key.pk, 1, 3)]
    later = await gate.call.post(CHAT, json=ASK)
    assert later.json()["estimated_completion_time"] is not None, "now there is a history"


async def test_what_can_never_run_is_refused_at_once(gate: Door) -> None:
    wrong = [
        ({**ASK, "stream": True}, 400, "stream"),
        ({**ASK, "webhook_url": "https://10.0.0.8/hook"}, 400, "webhook_url"),
        ({**ASK, "webhook_url": "ftp://example.com/"}, 400, "webhook_url"),
        ({**ASK, "webhook_url": 7}, 400, "webhook_url"),
        ({**ASK, "model": "another"}, 404, "model"),
    ]
    for body, status, param in wrong:
        answer = await gate.call.post(CHAT, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    for unreadable in (b"{", b'{"messages":' + b"[" * 400 + b"]" * 400 + b"}"):
        assert (await gate.call.post(CHAT, content=unreadable)).json()["error"]["code"] == "invalid_json"
    assert (await gate.call.post(CHAT.replace("chat", "chess"), json=ASK)).status_code == 404
    assert (await gate.call.get(CHAT)).status_code == 405
    assert (await gate.call.post(CHAT, json=ASK, headers={"idempotency-key": "k" * 201})).status_code == 400
    await in_database(lambda: Endpoint.objects.get().stop(by=None))
    await gate.refresh()
    stopped = await gate.call.post(CHAT, json=ASK)
    assert (stopped.status_code, stopped.json()["error"]["code"]) == (409, "endpoint_stopped")
    assert await in_database(AsyncRequest.objects.count) == 0


async def test_an_image_of_ones_own_is_asked_by_its_own_names_for_models(gate: Door, engine: Engine) -> None:
    table = gate.server.app.gateway.table
    foreign = replace(table.routes["tiny"], foreign=True, open=True)
    gate.store.table = RouteTable([foreign], table.keys, table.trust)
    gate.server.app.gateway.take_table(gate.store.table)
    await gate.reached(await gate.submit(model="my-own"), "succeeded")
    assert engine.seen[0]["model"] == "my-own"


async def test_an_answer_longer_than_the_endpoint_allows_is_asked_for_once(gate: Door, engine: Engine) -> None:
    table, engine.words = gate.server.app.gateway.table, 1000
    short = replace(table.routes["tiny"], admission=Admission(max_response_bytes=2000))
    gate.store.table = RouteTable([short], table.keys, table.trust)
    gate.server.app.gateway.take_table(gate.store.table)
    found = await gate.reached(await gate.submit(), "failed")
    assert (found["error"]["code"], found["attempts"], len(engine.seen)) == ("response_too_large", 1, 1)


async def test_sent_again_with_its_key_it_is_the_same_request(gate: Door, engine: Engine) -> None:
    again = {"idempotency-key": "order-7"}
    first, second = [await gate.call.post(CHAT, json=ASK, headers=again) for _ in range(2)]
    assert first.json()["request_id"] == second.json()["request_id"]
    other = await gate.call.post(CHAT, json={**ASK, "max_tokens": 3}, headers=again)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    await gate.reached(first.json()["request_id"], "succeeded")
    assert len(engine.seen) == 1


async def test_only_the_projects_keys_that_may_call_the_endpoint_see_it(gate: Door, here: World) -> None:
    request_id = await gate.submit()

    def others() -> list[str]:
        make.endpoint(here.endpoint.project, name="other", ready=1)
        narrow = make.key(here.endpoint.project, endpoint_ids=[Endpoint.objects.get(name="other").pk])[1]
        stranger = make.key(make.project("Beta", make.user("charlie")))[1]
        return [narrow, stranger]

    narrow, stranger = await in_database(others)
    await gate.refresh()
    for secret in (narrow, stranger):
        for method, path in (("GET", STATUS), ("DELETE", STATUS)):
            seen = await gate.call.request(
                method, path + request_id, headers={"authorization": f"Bearer {secret}"}
            )
            assert seen.status_code in (403, 404)
    by_other_endpoint = await gate.call.get(f"/e/other/v1/async/status/{request_id}")
    assert by_other_endpoint.json()["error"]["code"] == "request_not_found"
    by_narrow = {"authorization": f"Bearer {narrow}"}
    assert (await gate.call.get(f"/e/other/v1/async/status/{request_id}", headers=by_narrow)).status_code == 404
    for nobodys in ("async-req-none", "%00", ""):
        assert (await gate.call.get(STATUS + nobodys)).status_code == 404


async def test_callers_go_first_and_what_is_queued_takes_what_they_leave(gate: Door, engine: Engine) -> None:
    engine.behaviour = "hang"
    await in_database(lambda: Endpoint.objects.update(target_concurrency=2))
    await gate.refresh()
    callers = [asyncio.create_task(gate.call.post("/e/tiny/v1/chat/completions", json=ASK)) for _ in range(2)]
    await until(lambda: engine.open == 2, "both callers to be served")
    queued = [await gate.submit() for _ in range(3)]
    assert gate.jobs.runner is not None
    await gate.jobs.runner.look()
    assert [(await gate.status(one))["status"] for one in queued] == ["queued"] * 3
    callers[0].cancel()
    await until(lambda: engine.open == 1, "one caller to have left")
    await gate.jobs.runner.look()
    await until(lambda: engine.open == 2, "the first of the queue to be served")
    assert [(await gate.status(one))["status"] for one in queued] == ["running", "queued", "queued"]
    engine.hold.set()
    engine.behaviour = "good"
    for one in queued:
        await gate.reached(one, "succeeded", "queued")
    callers[1].cancel()


async def test_a_cancelled_one_ends_before_or_while_it_runs(gate: Door, engine: Engine) -> None:
    engine.behaviour = "hang"
    await in_database(lambda: Endpoint.objects.update(target_concurrency=1))
    await gate.refresh()
    running = await gate.submit()
    await until(lambda: engine.open == 1, "it to run")
    waiting = await gate.submit()
    gone = await gate.call.delete(STATUS + waiting)
    assert (gone.status_code, gone.json()["status"]) == (200, "cancelled")
    assert (await gate.call.post(STATUS + running + "/cancel")).json()["status"] == "cancelled"
    await until(lambda: engine.hung_up == 1, "the instance to be hung up on")
    assert (await gate.call.delete(STATUS + running)).status_code == 200, "cancelled again is no error"
    await until(lambda: not gate.jobs.busy, "the run to end")
    assert (await gate.status(running))["response"] is None
    assert await billed() == []
    engine.behaviour = "good"
    done = await gate.submit()
    await gate.reached(done, "succeeded")
    refused = await gate.call.delete(STATUS + done)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "already_finished")


async def test_what_the_engine_refuses_is_the_end_and_what_breaks_is_run_again(gate: Door, engine: Engine) -> None:
    engine.behaviour = "cut json"
    request_id = await gate.submit()
    await until(lambda: len(engine.seen) >= 1, "a first run")
    engine.behaviour = "good"
    async with asyncio.timeout(60):
        while (await only()).state != State.QUEUED:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await in_database(lambda: AsyncRequest.objects.update(due_at=Now()))
    found = await gate.reached(request_id, "succeeded")
    assert found["attempts"] == 2
    assert [record.status for record in gate.records] == [502, 200]
    assert [requests for _, requests, _ in await billed()] == [1], "billed once, for its result"


async def test_a_revoked_keys_request_does_not_run(gate: Door, here: World, engine: Engine) -> None:
    await in_database(lambda: Endpoint.objects.update(target_concurrency=1))
    await gate.refresh()
    engine.behaviour = "hang"
    first = await gate.submit()
    await until(lambda: engine.open == 1, "one to run")
    second = await gate.submit()
    await in_database(lambda: here.key.revoke(at=timezone.now()))
    await gate.refresh()
    engine.behaviour = "good"
    engine.hold.set()

    async def over() -> AsyncRequest:
        return await in_database(lambda: AsyncRequest.objects.get(request_id=second))

    async with asyncio.timeout(60):
        while not (await over()).over:
            gate.look()
            await asyncio.sleep(0.02)
    assert ((await over()).state, (await over()).error_code) == (State.FAILED, "key_revoked")
    assert len(engine.seen) == 1
    assert first != second


async def test_a_persons_token_may_queue_and_what_it_queued_falls_with_the_person(
    gate: Door, here: World, engine: Engine
) -> None:
    bob = await in_database(lambda: make.member(here.endpoint.project))
    project, ids = here.endpoint.project, [here.endpoint.pk]
    issued = await in_database(lambda: tokens.for_person(bob, project, at=timezone.now(), endpoint_ids=ids))
    engine.behaviour = "hang"
    await in_database(lambda: Endpoint.objects.update(target_concurrency=1))
    await gate.refresh()
    by_bob = {"authorization": f"Bearer {issued.token}"}
    first, second = [(await gate.call.post(CHAT, json=ASK, headers=by_bob)).json()["request_id"] for _ in range(2)]
    await until(lambda: engine.open == 1, "the first to run")
    await in_database(lambda: bob.memberships.all().delete())
    await gate.refresh()
    engine.behaviour = "good"
    assert (await gate.call.delete(STATUS + first)).status_code == 200
    ended = await gate.reached(second, "failed")
    assert ended["error"]["code"] == "key_revoked"
    assert len(engine.seen) == 1


async def test_the_limits_of_the_key_that_asked_hold_at_its_turn(gate: Door, here: World, engine: Engine) -> None:
    await in_database(lambda: ApiKey.objects.filter(pk=here.key.pk).update(requests_per_minute=1))
    await gate.refresh()
    ids = [await gate.submit() for _ in range(2)]
    await gate.reached(ids[0], "succeeded")
    async with asyncio.timeout(60):
        while (row := await in_database(lambda: AsyncRequest.objects.get(request_id=ids[1]))).status != 429:
            gate.look()
            await asyncio.sleep(0.02)
    assert (row.state, row.failures, len(engine.seen)) == (State.QUEUED, 0, 1)
    assert row.due_at > timezone.now()


async def test_a_queue_has_an_end(gate: Door, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    engine.behaviour = "hang"
    monkeypatch.setattr(jobs_door, "LONGEST_QUEUE", 1)
    await gate.submit()
    full = await gate.call.post(CHAT, json=ASK)
    assert (full.status_code, full.json()["error"]["code"]) == (429, "async_queue_full")
    assert full.headers["retry-after"] == "60"
    monkeypatch.setattr(jobs_door, "LONGEST_QUEUE", 9)
    monkeypatch.setattr(jobs_door, "LARGEST_QUEUE", 10)
    assert (await gate.call.post(CHAT, json=ASK)).status_code == 429


async def test_one_that_waits_may_wake_an_endpoint_that_sleeps(gate: Door, engine: Engine) -> None:
    woken: list[str] = []
    gateway = gate.server.app.gateway
    gateway.wake = lambda route: woken.append(route.name)
    awake = gateway.table.routes["tiny"]
    asleep = replace(awake, instances=(), awaited=True, asleep=True, state="idle")
    gate.store.table = RouteTable([asleep], gateway.table.keys)
    gateway.take_table(gate.store.table)
    ids = [await gate.submit() for _ in range(3)]
    await until(lambda: bool(woken), "it to be woken")
    states = sorted([(await gate.status(one))["status"] for one in ids])
    assert states == ["queued", "queued", "running"], "one is enough to wake it"
    assert engine.seen == []
    gate.store.table = RouteTable([awake], gateway.table.keys)
    gateway.take_table(gate.store.table)
    for one in ids:
        await gate.reached(one, "succeeded")


@pytest.mark.parametrize("step", ["while it ran", "before it stored", "after it stored"])
async def test_whoever_falls_silent_wherever_it_is_billed_once(
    gate: Door, engine: Engine, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One runner falls silent at a step, its lease runs out, another finishes, and the first comes back late."""
    stored, kept = asyncio.Event(), runner._keep
    loop = asyncio.get_running_loop()

    def silent(run: queue.Run, verdict: Any) -> bool:
        if step == "after it stored":
            kept(run, verdict)
        loop.call_soon_threadsafe(stored.set)
        raise Away("the database is away")

    here = gate.jobs.runner
    assert here is not None
    if step == "while it ran":
        engine.behaviour = "hang"
    else:
        monkeypatch.setattr(runner, "_keep", silent)
    request_id = await gate.submit()
    await until(lambda: bool(engine.seen) if step == "while it ran" else stored.is_set(), "it to get this far")
    here.asking.clear()  # it renews no more
    await in_database(
        lambda: AsyncRequest.objects.filter(state=State.RUNNING).update(lease_until=Now() - timedelta(seconds=1))
    )
    engine.behaviour = "good"
    monkeypatch.setattr(runner, "_keep", kept)
    found = await gate.reached(request_id, "succeeded")
    engine.hold.set()
    await until(lambda: not gate.jobs.busy, "the first to come back")
    assert found["attempts"] == (1 if step == "after it stored" else 2)
    assert [requests for _, requests, _ in await billed()] == [1]
    assert (await gate.status(request_id))["response"] == found["response"]


async def test_told_to_end_it_finishes_what_runs_and_queues_again_what_does_not(
    here: World, tmp_path: Path, engine: Engine
) -> None:
    async with door(tmp_path, here, engine) as gate:
        engine.behaviour = "hang"
        request_id = await gate.submit()
        await until(lambda: engine.open == 1, "it to run")
        assert gate.server.app.keeper.busy
        await gate.server.stop(patience=0)
        await until(lambda: engine.hung_up == 1, "the instance to be hung up on")
    row = await only()
    assert (row.state, row.failures, row.request_id) == (State.QUEUED, 0, request_id)


async def test_a_gateway_killed_while_it_runs_one_leaves_it_to_the_next(
    here: World, tmp_path: Path, engine: Engine
) -> None:
    """Real processes, kill -9, and the whole path: keys and routes from the database."""
    await in_database(lambda: here.endpoint.instances.update(address=f"http://127.0.0.1:{engine.port}"))
    engine.behaviour = "hang"
    with process(tmp_path, (first := free_port())) as dying:
        async with speaking(first, here) as call:
            request_id = (await call.post(CHAT, json=ASK)).json()["request_id"]
            await until(lambda: engine.open == 1, "it to run")
            dying.kill()
    engine.behaviour = "good"
    await in_database(lambda: AsyncRequest.objects.update(lease_until=Now() - timedelta(seconds=1)))
    with process(tmp_path, (second := free_port())):
        async with speaking(second, here) as call, asyncio.timeout(120):
            while (found := (await call.get(STATUS + request_id)).json())["status"] != "succeeded":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert (found["attempts"], len(engine.seen)) == (2, 2)
    assert await billed() == [(here.key.pk, 1, 3)]


@contextlib.contextmanager
def process(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m gateway` at the tests' database."""
    place = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    own = {"GATEWAY_PORT": str(port), "DATA_DIR": str(folder), "DATABASE_URL": place.geturl()}
    with subprocess.Popen([sys.executable, "-m", "gateway"], env={**os.environ, **own}, cwd=ROOT) as running:
        try:
            yield running
        finally:
            running.kill()


@contextlib.asynccontextmanager
async def speaking(port: int, here: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the world's key, once the gateway knows its routes."""
    base, headers = f"http://127.0.0.1:{port}", {"authorization": f"Bearer {here.secret}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=60, trust_env=False) as call:
        async with asyncio.timeout(120):
            while not await is_ready(call):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield call


async def is_ready(call: httpx.AsyncClient) -> bool:
    try:
        return (await call.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_a_result_outlives_its_hours_by_nothing(gate: Door) -> None:
    request_id = await gate.submit()
    await gate.reached(request_id, "succeeded")
    await in_database(lambda: AsyncRequest.objects.update(expires_at=timezone.now() - timedelta(seconds=1)))
    gone = await gate.call.get(STATUS + request_id)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "result_expired")
