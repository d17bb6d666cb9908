"""Many streams at once on one process that began with few files, and one caller among them that does not read."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import orjson

from tests.gateway.caller import Caller, asked
from tests.gateway.engine import Engine
from tests.gateway.house import until
from tests.gateway.test_kill import process, ready
from tir_console.up.ports import free_port

FILES, STREAMS = 128, 150  # a stream needs two; a process begins with 1024 nearly everywhere
FEW_FILES = ("sh", "-c", f'ulimit -Sn {FILES}; exec "$@"', "-")
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"


class Flooding(Engine):
    """Never comes to an end with whoever wishes that."""

    async def _events(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        while request.get("flood"):
            await self._event(writer, {"choices": [{"index": 0, "delta": {"content": "word " * 2000}}]})
        await super()._events(request, writer)


async def test_many_streams_are_whole_beside_one_that_nobody_reads(tmp_path: Path) -> None:
    port = free_port()
    async with (
        Flooding(behaviour="hang after first") as engine,
        contextlib.AsyncExitStack() as lines,
        asyncio.timeout(180),
    ):
        lines.enter_context(process(tmp_path, port, engine, under=FEW_FILES))
        await lines.enter_async_context(ready(port))

        async def ask(**more: Any) -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            lines.callback(Caller(reader, writer).hang_up)
            writer.write(asked(body=orjson.dumps({"messages": [], "stream": True, **more})))
            await reader.readuntil(b"\n\n")
            return reader

        await ask(flood=True)
        others = await asyncio.gather(*(ask() for _ in range(STREAMS)))
        await until(lambda: engine.open == STREAMS + 1, "all to be under way at once")
        engine.hold.set()
        answers = await asyncio.gather(*(one.readuntil(END) for one in others))
        assert all(b"word2" in answer for answer in answers)
        assert engine.open == 1
