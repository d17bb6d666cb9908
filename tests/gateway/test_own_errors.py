"""An error of the gateway's own, wherever it happens: this request ends by it, and nothing else does."""

from pathlib import Path
from typing import Any

import pytest

from gateway import answer, exchange
from gateway.pool import Pool
from gateway.queue import Dispatch
from tests.gateway.caller import HELLO, STREAMED, announced, asked, caller, once
from tests.gateway.engine import Engine
from tests.gateway.house import House, house, until

pytestmark = pytest.mark.interpreted  # what is called in compiled code can't be replaced


def fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("an error of ours")


async def ends_alone(gateway: House, patch: pytest.MonkeyPatch, request: bytes = asked(body=HELLO)) -> None:
    """The request gets a 500 and is counted, nothing is held, and the next one is answered."""
    failed = await once(gateway, request)
    assert (failed.status, failed.code) == (500, "internal_error")
    assert [record.status for record in await gateway.settled()] == [500]
    assert gateway.app.gateway.balancer.in_flight == {}
    patch.undo()
    assert (await once(gateway, asked(body=HELLO))).status == 200


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (exchange, "prepare"),
        (Dispatch, "ask"),
        (Pool, "waiting"),
        (exchange.Exchange, "_ask"),
        (exchange, "tokens_in"),
    ],
)
async def test_in_any_step(
    gateway: House, engine: Engine, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    monkeypatch.setattr(where, name, fails)
    await ends_alone(gateway, monkeypatch)
    await until(lambda: engine.open == 0, "the engine to be let go")


async def test_once_the_body_came_later(gateway: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "prepare", fails)
    async with caller(gateway) as line:
        await line.send(announced(len(HELLO)))
        await line.send(HELLO)
        failed = await line.answer()
    assert (failed.status, failed.code) == (500, "internal_error")


async def test_in_a_stream(gateway: House, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer.Stream, "take", fails)
    await ends_alone(gateway, monkeypatch, asked(body=STREAMED))
    await until(lambda: engine.open == 0, "the engine to be let go")


@pytest.mark.parametrize("behaviour", ["hang after first", "cut stream"])
async def test_after_the_caller_or_the_engine_left(
    gateway: House, engine: Engine, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    engine.behaviour = behaviour
    monkeypatch.setattr(answer.Stream, "tokens", fails)
    async with caller(gateway) as line:
        await line.send(asked(body=STREAMED))
        await line.head()
    assert [record.status for record in await gateway.settled()] == [500]
    await until(lambda: gateway.app.gateway.balancer.in_flight == {}, "the instance to be let go")
    await until(lambda: engine.open == 0, "the engine to be let go")


async def test_at_the_end_of_the_gateway_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Engine(behaviour="hang") as engine, house(tmp_path, engine) as gateway, caller(gateway) as line:
        assert (await gateway.call.get("/e/tiny/health")).status_code == 200
        await line.send(asked(body=HELLO))
        await until(lambda: engine.open == 1, "the engine to be asked")
        flushes = gateway.store.flushes
        engine.behaviour = "good"
        assert (await once(gateway, asked(body=HELLO))).status == 200
        monkeypatch.setattr(exchange.Exchange, "cut", fails)
        await gateway.server.stop(patience=0.05)
        assert gateway.store.flushes > flushes, "what was counted is written all the same"


async def test_of_one_that_waited_for_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Engine(behaviour="hang") as engine, house(tmp_path, engine, capacity_per_instance=1) as gateway:
        async with caller(gateway) as first, caller(gateway) as second:
            await first.send(asked(body=HELLO))
            await until(lambda: len(engine.seen) == 1, "the first to be asked")
            await second.send(asked(body=HELLO))
            await until(lambda: gateway.app.gateway.dispatch.queued == {5: 1}, "the second to wait")
            monkeypatch.setattr(exchange.Exchange, "_reach", fails)
            engine.behaviour = "good"
            engine.hold.set()
            assert (await first.answer()).status == 200
            assert (await second.answer()).status == 500
        assert gateway.app.gateway.balancer.in_flight == {}
