"""The limits of a request: how large, and how long in coming."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway import line as transport
from gateway.client import Limits
from tests.gateway.caller import (
    CHAT,
    CHUNKED,
    HELLO,
    MODELS,
    Answer,
    Caller,
    announced,
    asked,
    caller,
    chunked,
    once,
    still_serves,
)
from tests.gateway.engine import Engine
from tests.gateway.house import House, house


@pytest.fixture
async def small(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(transport, "HEAD_BYTES", 2048)
    async with house(tmp_path, engine, limits=Limits(body_bytes=1000, body_seconds=0.1)) as running:
        yield running


def refusal(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code, answer.closes) == (status, code, True)
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["date"].endswith("GMT")


BIG_HEADS = {
    "one header": asked("GET", MODELS, "x-a: " + "y" * 3000),
    "many headers": asked("GET", MODELS, *(f"x-{n}: y" for n in range(600))),
    "the target": asked("GET", MODELS + "?" + "y" * 3000),
    "no end": asked("GET", MODELS, "x-a: " + "y" * 3000)[:-4],
    "a name": asked("GET", MODELS, "x" * 3000 + ": y"),
}


@pytest.mark.parametrize("head", BIG_HEADS.values(), ids=BIG_HEADS.keys())
@pytest.mark.parametrize("cut", [None, 500], ids=["at once", "in parts"])
async def test_a_head_too_large_is_431(small: House, engine: Engine, head: bytes, cut: int | None) -> None:
    async with caller(small) as line:
        for at in range(0, len(head), cut or len(head)):
            await line.send(head[at : at + (cut or len(head))])
            await asyncio.sleep(0.001)
        refusal(await line.answer(), 431, "headers_too_large")
        assert await line.ended() == b""
    assert engine.heads == []


async def test_a_head_just_small_enough_passes_with_its_body(small: House) -> None:
    body = HELLO + b" " * (1000 - len(HELLO))
    head = asked("POST", CHAT, "x-a: " + "y" * 1700, body=body)
    assert len(head) > 2048
    async with caller(small) as line:
        await line.send(head * 3)
        assert [(await line.answer()).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(
    "data", [announced(1001) + b" " * 1001, asked("POST", CHAT, CHUNKED) + chunked(b" " * 1001)]
)
async def test_a_body_too_large_is_413(small: House, engine: Engine, data: bytes) -> None:
    answer = await once(small, data)
    assert (answer.status, answer.code) == (413, "request_too_large")
    assert engine.heads == []
    await still_serves(small)


@pytest.mark.parametrize("data", [announced(1001), asked("POST", CHAT, CHUNKED) + b"3e9\r\n" + b" " * 999])
async def test_a_body_that_does_not_come_is_408(small: House, engine: Engine, data: bytes) -> None:
    async with caller(small) as line:
        await line.send(data)
        refusal(await line.answer(), 408, "request_timeout")
        assert await line.ended() == b""
    assert engine.heads == []


async def test_a_head_that_does_not_come_is_408(
    gateway: House, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "HEAD_SECONDS", 0.01)
    async with caller(gateway) as fresh, caller(gateway) as used, caller(gateway) as row:
        await used.send(asked("GET", "/healthz"))
        assert (await used.answer()).status == 200
        for line in (fresh, used):
            await line.send(b"GET / HTTP/1.1\r\nhost")
        await row.send(asked(body=HELLO) + b"GET / HTTP/1.1\r\nhost")
        assert (await row.answer()).status == 200
        for line in (fresh, used, row):
            refusal(await line.answer(), 408, "request_timeout")
            assert await line.ended() == b""
    assert len(engine.heads) == 1


async def test_a_head_that_dribbles_is_408_all_the_same(gateway: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HEAD_SECONDS", 0.2)
    async with caller(gateway) as line:
        dribbling = asyncio.create_task(_dribble(line))
        refusal(await line.answer(), 408, "request_timeout")
        line.hang_up()
        await dribbling


async def _dribble(line: Caller) -> None:
    try:
        await line.send(b"GET / HTTP/1.1\r\n")
        for number in range(1000):
            await line.send(b"x-%d: y\r\n" % number)
            await asyncio.sleep(0.01)
    except ConnectionError:
        pass
