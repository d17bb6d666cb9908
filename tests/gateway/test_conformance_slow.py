"""Engines that are slow: to read, to answer, or in the middle of it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from gateway.client import Limits
from gateway.exchange import Exchange
from tests.gateway.caller import CHAT, HELLO, MODELS, STREAMED, Script, asked, caller, once, says
from tests.gateway.engine import Engine
from tests.gateway.house import house, until

JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
DONE = b"data: [DONE]\n\n"
LARGE = b'{"padding":"' + b"x" * 6 * 2**20 + b'"}'
HASTY = Limits(heartbeat_seconds=0.02, silence_seconds=0.06)


async def test_a_slow_engines_events_pass_on_one_by_one(tmp_path: Path) -> None:
    slow = Engine(behaviour="hang after first")
    async with slow as engine, house(tmp_path, engine) as gateway, caller(gateway) as line:
        await line.send(asked(body=STREAMED))
        assert (await line.head()).status == 200
        first = await line.chunk()
        assert first.count(b"data:") == 1
        assert engine.open == 1  # the rest is still to come
        engine.hold.set()
        rest = b""
        while chunk := await line.chunk():
            rest += chunk
        assert rest.endswith(DONE)


async def test_a_slow_engines_bytes_are_put_together_to_events(tmp_path: Path) -> None:
    data = EVENT * 2 + DONE
    parts = [b"1\r\n%c\r\n" % byte for byte in data]
    play = says(EVENTS + b"transfer-encoding: chunked\r\n\r\n", *parts, b"0\r\n\r\n")
    async with Script(play=play) as engine, house(tmp_path, engine) as gateway:
        assert (await once(gateway, asked(body=STREAMED))).body == data


async def test_an_engine_that_stops_in_its_head_is_given_up(tmp_path: Path) -> None:
    async def play(writer: asyncio.StreamWriter) -> bool:
        writer.write(JSON)
        await asyncio.Event().wait()
        return True

    async with Script(play=play) as engine, house(tmp_path, engine, limits=HASTY) as gateway:
        answer = await once(gateway, asked(body=HELLO))
        assert (answer.status, answer.code) == (504, "upstream_timeout")
        await until(lambda: engine.open == 0, "the engine to be let go")
        assert len(engine.seen) == 1


async def test_models_of_a_slow_engine_do_not_hold_others_up(tmp_path: Path) -> None:
    async with Engine(behaviour="hang") as engine, house(tmp_path, engine) as gateway, caller(gateway) as waiting:
        await waiting.send(asked("GET", MODELS))
        await until(lambda: engine.open == 1, "the engine to be asked")
        assert (await once(gateway, asked("GET", "/healthz"))).status == 200
        engine.hold.set()
        assert (await waiting.answer()).status == 200


async def test_no_heartbeat_goes_into_json_that_was_asked_for_as_a_stream(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def play(writer: asyncio.StreamWriter) -> bool:
        writer.write(JSON + b"transfer-encoding: chunked\r\n\r\n2\r\n[1\r\n")
        while not seen.is_set():  # it begins to pass on with the second part that it reads by itself
            writer.write(b"1\r\n \r\n")
            await asyncio.sleep(0.01)
        writer.write(b"3\r\n,2]\r\n0\r\n\r\n")
        return True

    async with Script(play=play) as engine, house(tmp_path, engine) as gateway, caller(gateway) as line:
        await line.send(asked(body=STREAMED))
        await line.head()
        [there] = gateway.server.lines
        there.look(asyncio.get_running_loop().time() + 100)
        seen.set()
        body = b""
        while chunk := await line.chunk():
            body += chunk
        assert orjson.loads(body) == [1, 2]


async def test_a_stream_that_began_in_the_queue_says_how_long_it_waited(tmp_path: Path) -> None:
    async with Engine(behaviour="hang") as engine:
        told = house(tmp_path, engine, limits=Limits(heartbeat_seconds=0.02), capacity_per_instance=1)
        async with told as gateway, caller(gateway) as first, caller(gateway) as second:
            await first.send(asked(body=HELLO))
            await until(lambda: engine.open == 1, "the engine to be busy")
            await second.send(asked(body=STREAMED))
            assert int((await second.head()).headers["x-queue-ms"]) >= 20


# ── callers that are slow ────────────────────────────────────────────────────────────────────────
async def test_who_reads_a_long_answer_slowly_spoils_no_connection_for_the_next(tmp_path: Path) -> None:
    part = b" " * 200_000

    async def play(writer: asyncio.StreamWriter) -> bool:
        writer.write(JSON + b"content-length: %d\r\n\r\n" % (4 * len(part)))
        for _ in range(4):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)  # so that each is read by itself
        return True

    async with Script(play=play) as engine, house(tmp_path, engine) as gateway:
        for _ in range(3):
            async with caller(gateway) as line:
                await until(lambda: gateway.server.lines, "the connection to be there")
                [there] = gateway.server.lines
                assert there.transport is not None
                there.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                await line.send(asked(body=HELLO))
                assert len((await line.answer()).body) == 4 * len(part)
            await until(lambda: not gateway.server.lines and gateway.app.gateway.pool.idle, "all to be let go")


async def test_who_has_yet_to_take_the_last_event_gets_it_though_the_engine_hangs_up(tmp_path: Path) -> None:
    full = asyncio.Event()

    async def play(writer: asyncio.StreamWriter) -> bool:
        writer.write(EVENTS + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(EVENT), EVENT))
        await full.wait()
        writer.write(b"%x\r\n%b\r\n" % (len(DONE), DONE))
        await writer.drain()
        return False

    async with Script(play=play) as engine, house(tmp_path, engine) as gateway, caller(gateway) as line:
        await line.send(asked(body=STREAMED))
        await line.head()
        assert await line.chunk() == EVENT
        [there] = gateway.server.lines
        assert there.call is not None
        assert isinstance(there.call.owner, Exchange)
        connection = there.call.owner.connection
        there.pause_writing()  # as after a heartbeat that found no room
        full.set()
        await until(lambda: engine.open == 0, "the engine to have hung up")
        await until(lambda: connection is not None and (connection.paused or connection.closed), "that to be seen")
        there.resume_writing()
        assert await line.chunk() == DONE
        assert (await gateway.settled())[0].status == 200


# ── engines that do not take the whole request ───────────────────────────────────────────────────
Heard = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def hearing(heads: list[bytes], then: Heard) -> AsyncIterator[Engine]:
    """An engine that reads a head only, and does `then` while the body is still coming."""
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await then(reader, writer)
        finally:
            writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(converse(reader, writer)))

    try:
        async with await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**16) as server:
            yield Engine(port=server.sockets[0].getsockname()[1])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_engines_answer_before_the_end_of_the_body_arrives(tmp_path: Path) -> None:
    text = b'{"error":{"message":"too much"}}'

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 413 No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(text) + text)
        await writer.drain()
        while await reader.read(2**16):
            pass

    heads: list[bytes] = []
    async with hearing(heads, refuse) as engine, house(tmp_path, engine) as gateway:
        answer = await once(gateway, asked(body=LARGE))
        assert (answer.status, answer.json()["error"]["message"]) == (413, "too much")
        assert gateway.app.gateway.pool.idle == {}  # the rest of a body is no beginning of a request
    assert len(heads) == 1


async def test_an_engine_that_hangs_up_while_the_body_comes_is_502_and_asked_once(tmp_path: Path) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    heads: list[bytes] = []
    async with hearing(heads, leave) as engine, house(tmp_path, engine) as gateway:
        answer = await once(gateway, asked(body=LARGE))
        assert (answer.status, answer.code) == (502, "upstream_lost")
    assert len(heads) == 1


@pytest.mark.parametrize("leaves", [False, True], ids=["the engine is given up", "the caller leaves"])
async def test_an_engine_that_takes_no_body_holds_nobody(tmp_path: Path, leaves: bool) -> None:
    over = asyncio.Event()

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()

    heads: list[bytes] = []
    limits = None if leaves else HASTY
    async with hearing(heads, nothing) as engine, house(tmp_path, engine, limits=limits) as gateway:
        async with caller(gateway) as line:
            await line.send(asked("POST", CHAT, body=LARGE))
            await until(lambda: len(heads) == 1, "the engine to be asked")
            if not leaves:
                answer = await line.answer()
                assert (answer.status, answer.code) == (504, "upstream_timeout")
        [record] = await gateway.settled()
        assert record.status == (499 if leaves else 504)
        assert gateway.app.gateway.balancer.in_flight == {}
        over.set()
