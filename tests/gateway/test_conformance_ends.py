"""How connections end: callers that hang up, callers that do not read, and a gateway that is told to stop."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway import line as transport
from gateway.line import Line
from tests.gateway.caller import CHAT, HELLO, MODELS, STREAMED, Caller, Script, asked, caller, once
from tests.gateway.engine import Engine
from tests.gateway.house import House, house, until

LEFT_SECONDS = 0.1  # in which the engine must have been let go
TIMES = 10  # the machine may look away a few times, the gateway may not
STATES = [
    ("hang", HELLO, 0),
    ("silent first", STREAMED, 0),
    ("hang", STREAMED, 0),
    ("hang after first", STREAMED, 1),
]
NAMES = ["while JSON waits", "before the first chunk", "before the engine's head", "in mid-stream"]


# ── callers that hang up ─────────────────────────────────────────────────────────────────────────
def hang_up(line: Caller) -> None:
    line.hang_up()


def close_a_side(line: Caller) -> None:
    line.writer.write_eof()


def reset(line: Caller) -> None:
    own = line.writer.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    line.hang_up()


@pytest.mark.parametrize("leave", [hang_up, close_a_side, reset])
@pytest.mark.parametrize(("behaviour", "body", "chunks"), STATES, ids=NAMES)
async def test_a_hang_up_frees_the_engine_within_100_ms(
    gateway: House, engine: Engine, behaviour: str, body: bytes, chunks: int, leave: Callable[[Caller], None]
) -> None:
    engine.behaviour = behaviour
    took = [await freed(gateway, engine, body, chunks, leave)]
    while took[-1] >= LEFT_SECONDS and len(took) < TIMES:
        took.append(await freed(gateway, engine, body, chunks, leave))
    assert min(took) < LEFT_SECONDS
    assert [record.status for record in gateway.records] == [499] * len(took)
    assert gateway.app.gateway.balancer.in_flight == {}


async def freed(
    gateway: House, engine: Engine, body: bytes, chunks: int, leave: Callable[[Caller], None]
) -> float:
    """Ask, read so many chunks, leave, and return the seconds until the engine noticed."""
    before = engine.hung_up
    async with caller(gateway) as line:
        await line.send(asked(body=body))
        await until(lambda: engine.open == 1, "the engine to be asked")
        if chunks:
            assert (await line.head()).status == 200
            assert b"word0" in await line.chunk()
        left = time.monotonic()
        leave(line)
        await until(lambda: engine.hung_up > before, "the engine to be let go")
        took = time.monotonic() - left
        await until(lambda: engine.open == 0 and not gateway.server.lines, "all to be let go")
    return took


async def test_a_hang_up_frees_the_engine_though_more_was_asked(gateway: House, engine: Engine) -> None:
    """A begun second request must not make the gateway deaf."""
    engine.behaviour = "hang"
    async with caller(gateway) as line:
        await line.send(asked(body=HELLO) + asked("GET", MODELS)[:40])
        await until(lambda: engine.open == 1, "the engine to be asked")
        line.hang_up()
        await until(lambda: engine.hung_up == 1, "the engine to be let go")
    assert len(engine.seen) == 1


async def test_a_hang_up_frees_the_engine_though_a_row_waits(gateway: House, engine: Engine) -> None:
    engine.behaviour = "hang"
    async with caller(gateway) as line:
        await line.send(asked(body=HELLO))
        await until(lambda: engine.open == 1, "the engine to be asked")
        [one] = gateway.server.lines
        for count in (1, 2, 3):
            await line.send(asked("GET", MODELS))
            await until(lambda count=count: len(one.waiting) == count, "the next to be read")
        line.hang_up()
        await until(lambda: engine.hung_up == 1, "the engine to be let go")


async def test_a_hang_up_in_a_row_costs_the_engine_no_second_request(gateway: House, engine: Engine) -> None:
    engine.behaviour = "hang"
    async with caller(gateway) as line:
        await line.send(asked(body=HELLO) * 3)
        await until(lambda: engine.open == 1, "the engine to be asked")
        line.hang_up()
        await until(lambda: engine.hung_up == 1, "the engine to be let go")
        await until(lambda: not gateway.server.lines, "the connection to be let go")
    assert len(engine.seen) == 1
    assert [record.status for record in gateway.records] == [499]


async def test_an_idle_idlemay_close_one_side_or_both(gateway: House) -> None:
    async with caller(gateway) as line, caller(gateway) as fresh:
        await line.send(asked("GET", MODELS))
        assert (await line.answer()).status == 200
        for one in (line, fresh):
            one.writer.write_eof()
            assert await one.ended() == b""
    await until(lambda: not gateway.server.lines, "both to be let go")


# ── callers that do not read ─────────────────────────────────────────────────────────────────────
@dataclass
class Deaf:
    """A caller that takes nothing of its answers; `line` is the gateway's side of it, `sent` what it took."""

    own: socket.socket
    line: Line
    sent: int = 0

    async def flood(self, data: bytes) -> None:
        while True:
            self.sent += await self._some(data)

    async def _some(self, data: bytes) -> int:
        await asyncio.get_running_loop().sock_sendall(self.own, data)
        return len(data)


@asynccontextmanager
async def deaf(gateway: House, data: bytes = b"") -> AsyncIterator[Deaf]:
    loop = asyncio.get_running_loop()
    with socket.socket() as own:
        own.setblocking(False)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(own, ("127.0.0.1", gateway.port))
        await until(lambda: len(gateway.server.lines) == 1, "the connection to be accepted")
        [line] = gateway.server.lines
        await loop.sock_sendall(own, data)
        if data:
            await until(lambda: line.call is not None, "the request to be under way")
        yield Deaf(own, line)


def held(line: Line) -> int:
    """Bytes in the gateway's own memory that this caller has not taken."""
    assert line.transport is not None
    return line.transport.get_write_buffer_size()


async def stands(engine: Engine) -> int:
    """What the engine could send once that no longer grows."""
    before = -1
    while engine.sent == 0 or engine.sent != before:
        before = engine.sent
        await asyncio.sleep(0.2)
    return before


async def test_a_caller_that_does_not_read_slows_the_engine_and_costs_little(tmp_path: Path) -> None:
    async with Engine(words=400_000) as engine, house(tmp_path, engine) as gateway:  # some 60 MB
        async with deaf(gateway, asked(body=STREAMED)) as idle:
            assert await stands(engine) < 20_000_000
            assert held(idle.line) < 2**20
            assert (await once(gateway, asked("GET", "/healthz"))).status == 200
        [record] = await gateway.settled()
        assert record.status == 499
        await until(lambda: engine.open == 0, "the engine to be let go")


async def test_a_large_answer_in_one_piece_is_held_back_too(tmp_path: Path) -> None:
    size, part = 64 * 2**20, 2**16

    async def play(writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // part):
            writer.write(b"x" * part)
            await writer.drain()
            engine.sent += part
        return True

    async with Script(play=play) as engine, house(tmp_path, engine) as gateway:
        async with deaf(gateway, asked(body=HELLO)) as idle:
            assert await stands(engine) < 20_000_000
            assert held(idle.line) < 2**20
        [record] = await gateway.settled()
        assert record.status == 499


async def test_a_caller_that_reads_late_gets_everything(tmp_path: Path) -> None:
    async with Engine(words=50_000) as engine, house(tmp_path, engine) as gateway:
        async with caller(gateway, limit=2**16) as line:
            await line.send(asked("POST", CHAT, "connection: close", body=STREAMED))
            await stands(engine)
            answer = await line.answer()
        assert answer.whole
        assert answer.body.count(b"data: ") == 50_001
        [record] = await gateway.settled()
        assert (record.status, record.bytes_out) == (200, len(answer.body))


@pytest.mark.parametrize("words", [400_000, 20_000], ids=["in the middle", "at the end"])
async def test_a_caller_that_never_reads_is_cut_off_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    monkeypatch.setattr(transport, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(transport, "IDLE_SECONDS", 0.2)
    async with (
        Engine(words=words) as engine,
        house(tmp_path, engine) as gateway,
        deaf(gateway, asked(body=STREAMED)),
    ):
        await until(lambda: not gateway.server.lines, "the caller to be cut off")
        await until(lambda: engine.open == 0, "the engine to be let go")
        assert gateway.app.gateway.balancer.in_flight == {}


@pytest.mark.parametrize("target", ["/healthz", "/nothing", "/e/tiny/v1/nothing", MODELS])
async def test_a_row_of_requests_whose_answers_nobody_reads_is_not_answered_without_end(
    gateway: House, target: str
) -> None:
    one = asked("GET", target)
    async with deaf(gateway) as idle:
        flooding = asyncio.create_task(idle.flood(one * 200))
        before = -1
        while idle.sent == 0 or idle.sent != before:  # until nothing moves any more
            assert idle.sent < 64 * 2**20, "it reads without end"
            before = idle.sent
            await asyncio.sleep(0.2)
        assert held(idle.line) < 2**20
        assert len(idle.line.waiting) * len(one) < 2**20
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


# ── a gateway that stops ─────────────────────────────────────────────────────────────────────────
async def test_a_stop_closes_the_quiet_and_lets_the_busy_finish(tmp_path: Path, engine: Engine) -> None:
    engine.behaviour = "hang"
    async with (
        house(tmp_path, engine) as gateway,
        caller(gateway) as fresh,
        caller(gateway) as begun,
        caller(gateway) as busy,
    ):
        await begun.send(b"GET /healthz HTTP/1.1\r\n")
        await busy.send(asked(body=HELLO))
        await until(lambda: engine.open == 1, "the engine to be asked")
        stopping = asyncio.create_task(gateway.server.stop(patience=60))
        assert await fresh.ended() == b""
        assert await begun.ended() == b""
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", gateway.port)
        assert not stopping.done()
        engine.behaviour = "good"
        engine.hold.set()
        answer = await busy.answer()
        assert (answer.status, answer.whole, answer.closes) == (200, True, True)
        assert await busy.ended() == b""
        await asyncio.wait_for(stopping, 50)


async def test_a_stream_that_began_before_the_stop_ends_whole_and_holds_nothing_up(
    tmp_path: Path, engine: Engine
) -> None:
    engine.behaviour = "hang after first"
    async with house(tmp_path, engine) as gateway, caller(gateway) as line:
        await line.send(asked(body=STREAMED))
        assert not (await line.head()).closes
        assert await line.chunk()
        stopping = asyncio.create_task(gateway.server.stop(patience=60))
        await until(lambda: gateway.server.draining, "the stop to begin")
        engine.hold.set()
        rest = b""
        while chunk := await line.chunk():
            rest += chunk
        assert rest.endswith(b"data: [DONE]\n\n")
        assert await line.ended() == b""
        await asyncio.wait_for(stopping, 50)


async def test_a_row_that_came_before_the_stop_is_answered(tmp_path: Path, engine: Engine) -> None:
    engine.behaviour = "hang"
    async with house(tmp_path, engine) as gateway, caller(gateway) as line:
        await line.send(asked(body=HELLO) * 2)
        await until(lambda: engine.open == 1, "the engine to be asked")
        stopping = asyncio.create_task(gateway.server.stop(patience=60))
        await until(lambda: gateway.server.draining, "the stop to begin")
        engine.behaviour = "good"
        engine.hold.set()
        first = await line.answer()
        assert (first.status, first.closes) == (200, True)
        assert await line.ended() == b""  # told to close, it sends the second again elsewhere
        await asyncio.wait_for(stopping, 50)
        assert len(engine.seen) == 1


async def test_who_is_not_done_in_time_is_told_so_and_counted(tmp_path: Path, engine: Engine) -> None:
    engine.behaviour = "hang"
    async with house(tmp_path, engine) as gateway, caller(gateway) as line:
        await line.send(asked(body=HELLO))
        await until(lambda: engine.open == 1, "the engine to be asked")
        await asyncio.wait_for(gateway.server.stop(patience=0.05), 30)
        answer = await line.answer()
        assert (answer.status, answer.code, answer.closes) == (503, "gateway_ending", True)
        assert await line.ended() == b""
        await until(lambda: engine.open == 0, "the engine to be let go")
        assert [record.status for record in gateway.records] == [503]
        assert gateway.app.gateway.balancer.in_flight == {}


async def test_a_deaf_idledoes_not_hold_up_a_stop(tmp_path: Path) -> None:
    async with Engine(words=400_000) as engine, house(tmp_path, engine) as gateway:
        async with deaf(gateway, asked(body=STREAMED)):
            await stands(engine)
            await asyncio.wait_for(gateway.server.stop(patience=0.05), 30)
        await until(lambda: engine.open == 0, "the engine to be let go")
