"""Websockets to containers of one's own: opened, tunnelled whole, ended for a reason that both sides hear."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from gateway.websocket import Frames, close_frame
from tests.gateway.caller import caller
from tests.gateway.house import ALICE, House, house, until
from tests.gateway.sockets import Speaker, attempt, dialled, ending, open_now, opened, wish
from tir_console.up.ports import free_port


@pytest.fixture
async def speaker() -> AsyncIterator[Speaker]:
    async with Speaker() as one:
        yield one


@pytest.fixture
async def gateway(tmp_path: Path, speaker: Speaker) -> AsyncIterator[House]:
    async with house(tmp_path, open=True, instances=(speaker.upstream(),)) as running:
        yield running


# ── what is said ─────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_of_every_kind_and_size_come_back_as_they_were(
    gateway: House, compression: str | None
) -> None:
    async with dialled(gateway, "/e/tiny/a%2Fb?x=1", compression=compression) as socket:
        for message in (
            "",
            "ä text",
            b"\x00\xff" * 60,
            "x" * 125,
            "x" * 126,
            b"y" * 65_536,
            os.urandom(5 * 2**20),
        ):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(["in ", "three ", "parts"])
        assert await socket.recv() == "in three parts"
        await asyncio.gather(*(socket.send(str(number)) for number in range(500)))
        assert [await socket.recv() for _ in range(500)] == [str(number) for number in range(500)]
        pong = await socket.ping(b"are you there")
        assert await pong >= 0


async def test_the_instance_may_ask_too_and_speak_first(gateway: House, speaker: Speaker) -> None:
    async def greet(socket: ServerConnection) -> None:
        await socket.send("hello")
        await (await socket.ping())
        await socket.send(["you ", "answered"])

    speaker.act = greet
    async with dialled(gateway) as socket:
        assert await socket.recv() == "hello"
        assert await socket.recv() == "you answered"


async def test_the_instance_sees_the_handshake_but_no_key(gateway: House, speaker: Speaker) -> None:
    headers = {"x-request-id": "mine", "x-mine": "1", "cookie": "a=b"}
    async with dialled(gateway, "/e/tiny/a%2Fb?x=1", headers=headers) as socket:
        assert socket.response is not None
        assert socket.response.headers["x-request-id"] == "mine"
    [request] = speaker.requests
    assert request.path == "/a%2Fb?x=1"
    assert (request.headers["x-mine"], request.headers["cookie"]) == ("1", "a=b")
    assert (request.headers["x-request-id"], request.headers["x-forwarded-prefix"]) == ("mine", "/e/tiny")
    assert "authorization" not in request.headers
    assert ALICE not in str(request.headers)


async def test_a_websocket_carries_no_cookie_of_the_console(tmp_path: Path) -> None:
    private = ("sessionid", "csrftoken")
    async with (
        Speaker() as speaker,
        house(tmp_path, open=True, instances=(speaker.upstream(),), private=private) as gateway,
    ):
        for cookies in ("csrftoken=c; a=b; sessionid=s", "sessionid=s"):
            async with dialled(gateway, headers={"cookie": cookies}):
                pass
    assert [request.headers.get("cookie") for request in speaker.requests] == ["a=b", None]


async def test_a_browser_names_its_key_among_the_subprotocols(tmp_path: Path) -> None:
    token = Subprotocol("tir.bearer." + ALICE)
    async with (
        Speaker(subprotocols=[Subprotocol("chat")]) as speaker,
        house(tmp_path, open=True, instances=(speaker.upstream(),)) as gateway,
    ):
        for offered, answered, heard in (
            (["chat", token], "chat", "chat"),
            ([token, "other", "tir"], "tir", "other"),
            ([token], token, None),
        ):
            async with dialled(gateway, key=None, subprotocols=offered) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
                assert socket.subprotocol == answered
            assert speaker.requests[-1].headers.get("sec-websocket-protocol") == heard
        assert ALICE not in str([request.headers for request in speaker.requests])
        for wrong in (["tir.bearer.nobody"], [token, "tir.bearer.nobody"], ["tir"]):
            with pytest.raises(InvalidStatus) as refused:
                await attempt(gateway, key=None, subprotocols=wrong)
            assert refused.value.response.status_code == 401


async def test_bytes_that_come_with_the_handshake_are_not_lost(gateway: House) -> None:
    async with caller(gateway) as line:
        hello = Frame(Opcode.TEXT, b"early").serialize(mask=True)
        await line.send(wish() + hello[:3])
        await line.send(hello[3:])
        assert (await line.head()).status == 101
        async with asyncio.timeout(60):
            assert await line.reader.readexactly(7) == Frame(Opcode.TEXT, b"early").serialize(mask=False)


# ── how it ends ──────────────────────────────────────────────────────────────────────────────────
async def test_each_side_hears_why_the_other_ended_it(gateway: House, speaker: Speaker) -> None:
    async with dialled(gateway) as socket:
        await socket.close(4001, "enough")
    await until(lambda: speaker.ended == [(4001, "enough")], "the instance to hear it")

    async def dismiss(socket: ServerConnection) -> None:
        await socket.close(4002, "no more")

    speaker.act = dismiss
    async with dialled(gateway) as socket:
        assert await ending(socket) == (4002, "no more")
    records = await gateway.settled(2)
    assert [one.status for one in records] == [101, 101]
    await until(
        lambda: not gateway.server.lines and not gateway.app.gateway.balancer.in_flight, "all to be let go"
    )
    assert open_now(gateway) == 0
    assert not gateway.app.gateway.balancer.troubled


async def test_it_is_one_request_with_what_went_by(gateway: House) -> None:
    async with dialled(gateway, compression=None) as socket:
        await socket.send("x" * 1000)
        await socket.recv()
        assert gateway.records == []
        assert gateway.app.gateway.balancer.in_flight == {"tiny-0": 1}
        text = (await gateway.call.get("/metrics", headers={"authorization": ""})).text
        assert 'tir_gateway_open_websockets{endpoint="tiny"} 1' in text
    [record] = await gateway.settled()
    assert (record.status, record.key_id, record.revision_id) == (101, 1, 7)
    assert 1000 < record.bytes_in < 1100  # and its goodbye
    assert 1000 < record.bytes_out < 1100
    assert record.latency_us > 0
    meter = gateway.app.gateway.meter
    [(_, total)] = meter.windows_now(meter.now())
    assert (total.requests, total.classes, total.latency.count) == (1, {"2xx": 1}, 0)  # no answer took so long


async def test_it_waits_while_the_endpoint_wakes(gateway: House, speaker: Speaker) -> None:
    gateway.route(instances=(), awaited=True, asleep=True, state="idle")
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(attempt(gateway))
        await until(lambda: gateway.store.woken == [5], "a wake")
        assert not opening.done()
        gateway.route(instances=(speaker.upstream(),), awaited=True, state="active")
    assert (await gateway.settled())[0].status == 101


async def test_a_caller_that_dies_is_gone_for_the_instance_too(gateway: House, speaker: Speaker) -> None:
    async with caller(gateway) as line:
        await opened(line)
        await until(lambda: open_now(gateway) == 1, "the socket")
        line.hang_up()
        await until(lambda: speaker.ended == [(1006, "")], "the instance to see it")
    [record] = await gateway.settled()
    assert record.status == 101
    assert gateway.app.gateway.balancer.in_flight == {}


async def test_an_instance_that_dies_is_told_to_the_caller(gateway: House, speaker: Speaker) -> None:
    async with dialled(gateway) as socket:
        await socket.send("hello")
        await socket.recv()
        speaker.sockets[0].transport.abort()
        assert await ending(socket) == (1011, "The instance was lost.")
    [record] = await gateway.settled()
    assert record.status == 101
    assert gateway.app.keeper.telemetry.metrics.series[5].codes == {"upstream_lost": 1}
    assert gateway.app.gateway.balancer.troubled["tiny-0"].failures == 1


async def test_within_a_frame_nothing_is_said_and_the_end_is_seen_all_the_same(
    gateway: House, speaker: Speaker
) -> None:
    async def die_within(socket: ServerConnection) -> None:
        socket.transport.write(b"\x82\x7f\0\0\0\0\0\0\xff\xffhalf of it")
        await socket.wait_closed()

    speaker.act = die_within
    async with caller(gateway) as line:
        await opened(line)
        async with asyncio.timeout(60):
            assert (await line.reader.readexactly(20)).endswith(b"half of it")
        speaker.sockets[0].transport.abort()
        assert await line.ended() == b""
    await gateway.settled()


async def test_the_gateways_end_is_said_and_waits_for_the_goodbye(gateway: House, speaker: Speaker) -> None:
    async with dialled(gateway) as socket, caller(gateway) as line:
        await opened(line)
        await until(lambda: open_now(gateway) == 2, "both sockets")
        stopping = asyncio.create_task(gateway.server.stop(patience=60))
        assert (await ending(socket))[0] == 1001
        assert (await line.reader.readexactly(4))[2:] == (1001).to_bytes(2)
        line.hang_up()
        async with asyncio.timeout(60):
            await stopping
    assert [one.status for one in gateway.records] == [101, 101]


# ── nobody is filled up ──────────────────────────────────────────────────────────────────────────
async def test_a_reader_that_stops_makes_the_instance_wait(gateway: House, speaker: Speaker) -> None:
    sent = 0

    async def flood(socket: ServerConnection) -> None:
        nonlocal sent
        while True:
            await socket.send(b"x" * 65_536)
            sent += 65_536

    speaker.act = flood
    async with caller(gateway, limit=4096) as line:
        await opened(line)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await stands_still(lambda: sent)
        assert sent < 24 * 2**20  # what the kernel holds on the way, and not what the gateway does:
        [one] = gateway.server.lines
        assert one.transport is not None
        assert one.transport.get_write_buffer_size() < 2**20
        line.writer.transport.resume_reading()  # type: ignore[attr-defined]
        before = sent
        while sent < before + 2**20:
            assert await line.reader.read(2**20)


async def test_an_instance_that_stops_reading_makes_the_caller_wait(gateway: House, speaker: Speaker) -> None:
    reads = asyncio.Event()

    async def deaf(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await reads.wait()
        socket.transport.resume_reading()
        async for _ in socket:
            pass

    speaker.act = deaf
    sent = 0

    async def flood(socket: ClientConnection) -> None:
        nonlocal sent
        while True:
            await socket.send(b"x" * 65_536)
            sent += 65_536

    async with dialled(gateway, compression=None) as socket:
        flooding = asyncio.create_task(flood(socket))
        await stands_still(lambda: sent)
        assert sent < 24 * 2**20
        before = sent
        reads.set()
        await until(lambda: sent > before + 2**20, "it to go on")
        flooding.cancel()


# ── a process of its own ─────────────────────────────────────────────────────────────────────────
async def test_a_terminated_gateway_says_goodbye_and_ends(tmp_path: Path, speaker: Speaker) -> None:
    port = free_port()
    command = [sys.executable, "-m", "tests.gateway.gatewayd", str(tmp_path), str(port), str(speaker.port)]
    running = subprocess.Popen(command, cwd=Path(__file__).parents[2])  # noqa: ASYNC220
    try:
        async with asyncio.timeout(60):
            while not await _opens(port):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async with dialled(port, "/e/own/ws") as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            running.send_signal(signal.SIGTERM)
            assert (await ending(socket))[0] == 1001
        async with asyncio.timeout(60):
            assert await asyncio.to_thread(running.wait) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        running.wait()


async def _opens(port: int) -> bool:
    try:
        await attempt(port, "/e/own/ws")
    except (OSError, InvalidStatus, ConnectionClosed):
        return False
    return True


# ── parts ────────────────────────────────────────────────────────────────────────────────────────
async def stands_still(look: Callable[[], int]) -> None:
    """Until what is counted goes up no more."""
    async with asyncio.timeout(60):
        seen, same = -1, 0
        while same < 10:
            await asyncio.sleep(0.03)
            seen, same = look(), same + 1 if look() == seen and seen else 0


def test_the_ends_of_frames_are_found_however_they_are_cut() -> None:
    frames = [Frame(Opcode.BINARY, b"x" * size).serialize(mask=False) for size in (0, 1, 125, 126, 65_535, 65_536)]
    stream, ends, at = b"".join(frames), set(), 0
    for frame in frames:
        at += len(frame)
        ends.add(at)
    for step in (1, 2, 3, 7, 4096):
        follower = Frames()
        for start in range(0, len(stream), step):
            part = stream[start : start + step]
            end = start + follower.end_in(part)
            assert end in ends or end == start + len(part) or end == start
            follower.follow(part)
            assert follower.between == (start + len(part) in ends)
        assert not follower.closed
        follower.follow(close_frame(1000, "bye"))
        assert follower.closed
