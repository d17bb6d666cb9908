"""Whatever happens to many requests at once, each is counted, once, as what its caller saw."""

import asyncio
import random
import shutil
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from gateway.client import Limits
from gateway.meter import Meter
from gateway.totals import ABORTED, CLIENT_ERROR, OK, SERVER_ERROR, Rows, Total, class_of
from tests.gateway.caller import Answer, announced, asked, caller
from tests.gateway.engine import Engine
from tests.gateway.house import House, house

PER_KIND, AT_ONCE = 12, 24


class Moody(Engine):
    """Does with each request what it wishes in `act`."""

    async def _answer(self, head: str, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        match request.get("act"):
            case "mute":
                await self.hold.wait()
            case "die":
                _reset(writer)
        return await super()._answer(head, request, writer)

    async def _events(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        act = request.get("act")
        if act not in (None, "good"):
            await self._event(writer, {"choices": [{"index": 0, "delta": {"content": "word"}}]})
        match act:
            case "cut":
                _reset(writer)
            case "stall" | "endless":
                await self.hold.wait()
        await super()._events(request, writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Cut it off as a killed process's kernel does."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionResetError


async def outcome(gateway: House, act: str, *, stream: bool) -> str:
    """Ask, and say by what was seen in which class this must have been counted."""
    body = orjson.dumps({"messages": [], "act": act, "stream": stream})
    async with caller(gateway) as line:
        if act == "late":
            await line.send(announced(500) + b"{")
            return class_of((await line.answer()).status)
        await line.send(asked(body=body))
        if act == "endless":
            await line.head()
            await line.chunk()
            line.hang_up()
            return ABORTED
        return seen(await line.answer())


def seen(answer: Answer) -> str:
    if answer.headers["content-type"] == "application/json":
        return class_of(answer.status)
    assert answer.whole
    done = answer.body.endswith(b"data: [DONE]\n\n")
    assert done != (b'"error"' in answer.body)
    return OK if done else SERVER_ERROR


async def outcomes(gateway: House, kinds: Iterable[tuple[str, bool]]) -> Counter[str]:
    """Of so many of each kind, some at a time, in any order."""
    wishes = [kind for kind in kinds for _ in range(PER_KIND)]
    random.Random(5).shuffle(wishes)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(act: str, stream: bool) -> str:
        async with room:
            return await outcome(gateway, act, stream=stream)

    return Counter(await asyncio.gather(*(one(act, stream) for act, stream in wishes)))


def metered(batch: Iterable[Rows]) -> Total:
    whole = Total()
    for rows in batch:
        for total in rows.minutes.values():
            whole.merge(total)
    return whole


async def test_what_was_metered_is_what_was_answered(tmp_path: Path) -> None:
    own = tmp_path / "own"
    async with Moody() as engine, house(own, engine) as gateway:
        met = await outcomes(
            gateway, [("good", True), ("good", False), ("cut", True), ("die", False), ("endless", True)]
        )
        gateway.app.gateway.limits = Limits(body_seconds=0.1, heartbeat_seconds=0.05, silence_seconds=0.1)
        met += await outcomes(gateway, [("mute", False), ("mute", True), ("stall", True), ("late", False)])
        await gateway.settled(met.total())
        killed = shutil.copytree(own, tmp_path / "killed")  # what a kill would leave, at this moment
    assert set(met) == {OK, CLIENT_ERROR, ABORTED, SERVER_ERROR}
    written = Total()
    for total in gateway.store.minutes.values():
        written.merge(total)
    again = Meter.open(killed)
    for counted in (written, metered(again.dirty())):
        assert counted.requests == met.total()
        assert counted.classes == met
    again.close()
    tokens = [total.completion_tokens for key, total in gateway.store.quarters.items() if OK in key]
    assert sum(tokens) == met[OK] * engine.words
