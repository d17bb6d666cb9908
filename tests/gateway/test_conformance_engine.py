"""Towards engines: which headers travel, when a request may be sent again, and answers that are odd."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread

import pytest

from gateway.client import Limits
from gateway.routes import Upstream
from tests.gateway.caller import (
    CHAT,
    HELLO,
    STREAMED,
    Answer,
    Script,
    asked,
    caller,
    once,
    says,
    still_serves,
)
from tests.gateway.engine import Engine
from tests.gateway.house import House, house, until

JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def scripted(
    folder: Path, *parts: bytes, stays: bool = True, limits: Limits | None = None
) -> AsyncIterator[tuple[House, Script]]:
    async with Script(play=says(*parts, stays=stays)) as engine, house(folder, engine, limits=limits) as gateway:
        yield gateway, engine


async def played(folder: Path, *parts: bytes, body: bytes = HELLO, stays: bool = True) -> Answer:
    async with scripted(folder, *parts, stays=stays) as (gateway, engine):
        answer = await once(gateway, asked(body=body))
        assert len(engine.seen) == 1, "a second generation"
        assert gateway.app.gateway.balancer.in_flight == {}
        return answer


# ── which headers travel ─────────────────────────────────────────────────────────────────────────
async def test_no_header_about_the_callers_connection_reaches_the_engine(gateway: House, engine: Engine) -> None:
    hops = [
        "connection: keep-alive, x-hop, x-other",
        "x-hop: 1",
        "X-Other: 2",
        "keep-alive: timeout=5",
        "te: trailers",
        "trailer: x-sum",
        "proxy-authorization: Basic eDp5",
        "proxy-connection: keep-alive",
        "upgrade: h2c",
        "expect: 100-continue",
        "x-forwarded-for: 10.0.0.1",
        "cookie: session=1",
    ]
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, *hops, body=HELLO))
        assert (await line.answer()).status in (100, 200)
    [head] = engine.heads
    names = {text.partition(":")[0].lower() for text in head.strip().split("\r\n")[1:]}
    assert names == {"host", "accept", "x-request-id", "content-type", "content-length"}


async def test_no_header_about_the_engines_connection_reaches_the_caller(tmp_path: Path) -> None:
    hops = (
        b"connection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\ntrailer: x-sum\r\nupgrade: h2c\r\n"
        b"proxy-authenticate: Basic\r\nserver: llama.cpp\r\nset-cookie: a=b\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    body = b"2\r\n{}\r\n0\r\nx-sum: 1\r\n\r\n"
    async with scripted(tmp_path, JSON + hops + body, stays=False) as (gateway, _), caller(gateway) as line:
        for _ in range(2):
            await line.send(asked(body=HELLO))
            answer = await line.answer()
            assert (answer.status, answer.body, answer.closes) == (200, b"{}", False)
            wanted = {"content-type", "content-length", "transfer-encoding", "date", "x-request-id"}
            assert set(answer.headers) <= wanted


# ── once, and only once ──────────────────────────────────────────────────────────────────────────
async def test_a_pooled_socket_that_was_closed_meanwhile_is_not_used(tmp_path: Path) -> None:
    """An engine that hangs up after each answer without having said so."""
    body = JSON + b"content-length: 2\r\n\r\n{}"
    async with scripted(tmp_path, body, stays=False) as (gateway, engine):
        for number in range(1, 6):
            assert (await once(gateway, asked(body=HELLO))).status == 200
            await until(lambda: engine.connected == 0, "the engine to have hung up")
            assert (engine.connections, len(engine.seen)) == (number, number)


async def test_an_engine_that_hangs_up_with_its_last_byte_fails_nobody_in_a_row(tmp_path: Path) -> None:
    async def play(writer: asyncio.StreamWriter) -> bool:
        writer.write(JSON + b"content-length: 2\r\n\r\n{}")
        writer.write_eof()
        return False

    async with Script(play=play) as engine, house(tmp_path, engine) as gateway, caller(gateway) as line:
        await line.send(asked(body=HELLO) * 50)  # each is sent on in the moment in which the last was answered
        assert [(await line.answer()).status for _ in range(50)] == [200] * 50
        assert len(engine.seen) == 50


async def test_a_pooled_socket_that_was_reset_meanwhile_is_not_used(gateway: House, engine: Engine) -> None:
    await still_serves(gateway)
    await engine.stop()  # aborts: a reset, and nothing listens for a moment
    async with Engine(port=engine.port) as again:
        await still_serves(gateway)
        assert len(again.seen) == 1


@pytest.mark.parametrize("width", [1, 16])
async def test_an_engine_that_keeps_hanging_up_unannounced_is_soon_known_for_it(
    tmp_path: Path, width: int
) -> None:
    """It does so in a thread of its own, at any moment: some requests may be lost, until it is known."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        Thread(target=_accepting, args=(listening, seen), daemon=True).start()
        engine = Engine(port=listening.getsockname()[1])
        async with house(tmp_path, engine) as gateway:
            rows = await asyncio.gather(*(_row(gateway, 320 // width) for _ in range(width)))
        listening.shutdown(socket.SHUT_RDWR)
    statuses = [status for row in rows for status in row]
    assert set(statuses) <= {200, 502}
    assert statuses.count(502) <= 2 * width
    assert len(seen) <= 320, "a second generation"


async def _row(gateway: House, count: int) -> list[int]:
    async with caller(gateway) as line:
        statuses = []
        for _ in range(count):
            await line.send(asked(body=HELLO))
            statuses.append((await line.answer()).status)
    return statuses


def _accepting(listening: socket.socket, seen: list[bytes]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return  # the test is over
        with connection:
            seen.append(connection.recv(2**16))
            connection.sendall(JSON + b"content-length: 2\r\n\r\n{}")


@pytest.mark.parametrize("warm", [False, True], ids=["a new connection", "a kept connection"])
@pytest.mark.parametrize("body", [HELLO, STREAMED], ids=["JSON", "stream"])
async def test_an_engine_that_dies_with_the_request_is_502_and_asked_once(
    tmp_path: Path, warm: bool, body: bytes
) -> None:
    async with Engine() as one, Engine() as two, house(tmp_path, one, two) as gateway:
        if warm:
            await asyncio.gather(*(once(gateway, asked(body=HELLO)) for _ in range(8)))
        before = len(one.seen) + len(two.seen)
        one.behaviour = two.behaviour = "die"
        answer = await once(gateway, asked(body=body))
        assert (answer.status, answer.code, answer.closes) == (502, "upstream_lost", False)
        assert len(one.seen) + len(two.seen) == before + 1
        assert gateway.records[-1].status == 502


async def test_where_nothing_listens_another_is_asked(tmp_path: Path) -> None:
    nobody = Engine()
    with socket.socket() as bound:  # bound, never listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        nobody.port = bound.getsockname()[1]
        async with Engine() as other, house(tmp_path, nobody, other) as gateway:
            for _ in range(6):
                await still_serves(gateway)
            assert len(other.seen) == 6


async def test_where_the_name_is_none_another_is_asked(tmp_path: Path) -> None:
    async with Engine() as other, house(tmp_path, other) as gateway:
        none = Upstream("none", "a" * 64 + ".example", 80)
        gateway.route(instances=(none, *gateway.app.gateway.table.routes["tiny"].instances))
        for _ in range(6):
            await still_serves(gateway)


# ── answers that are odd ─────────────────────────────────────────────────────────────────────────
WHOLE = {
    "a length": [JSON + b"content-length: 2\r\n\r\n{}"],
    "chunks, with extensions and trailers": [
        JSON + b"transfer-encoding: chunked\r\n\r\n1;a=b\r\n{\r\n1\r\n}\r\n0\r\nx-sum: 1\r\n\r\n"
    ],
    "an early hint before it": [
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        JSON + b"content-length: 2\r\n\r\n{}",
    ],
    "a go-on before it": [b"HTTP/1.1 100 Continue\r\n\r\n" + JSON + b"content-length: 2\r\n\r\n{}"],
    "byte by byte": [bytes([byte]) for byte in JSON + b"content-length: 2\r\n\r\n{}"],
    "more than its length": [JSON + b"content-length: 2\r\n\r\n{}and more"],
    "a second answer behind it": [(JSON + b"content-length: 2\r\n\r\n{}") * 2],
    "another's answer behind it": [
        JSON + b"content-length: 2\r\n\r\n{}HTTP/1.1 500 No\r\ncontent-length: 6\r\n\r\nsecret"
    ],
}


@pytest.mark.parametrize("parts", WHOLE.values(), ids=WHOLE.keys())
async def test_an_answer_arrives_whole_however_it_came(tmp_path: Path, parts: list[bytes]) -> None:
    answer = await played(tmp_path, *parts)
    assert (answer.status, answer.body, answer.whole) == (200, b"{}", True)


def framed(draw: random.Random, data: bytes) -> bytes:
    """A chunk as nearly everybody writes it, and as the standard lets others."""
    size = draw.choice(["%x", "%x", "%x", "%X", "00%x", "%x;a=b"]) % len(data)
    return b"%b\r\n%b\r\n" % (size.encode(), data)


def cut(draw: random.Random, data: bytes, most: int) -> list[bytes]:
    at = sorted(draw.sample(range(1, len(data)), draw.randint(0, most)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


@pytest.mark.parametrize("seed", range(12))
async def test_a_stream_arrives_whole_however_it_was_framed_and_came(tmp_path: Path, seed: int) -> None:
    """A chunk that comes in one read as one event goes on as it is, and everything else the long way."""
    draw = random.Random(seed)
    events = [draw.choice([EVENT, EVENT, b": still here\n\n", EVENT.replace(b"\n", b"\r\n")]) for _ in range(60)]
    body = b"".join([EVENT, *events, DONE])
    inside = cut(draw, body, 40) if seed % 3 == 0 else [EVENT, *events, DONE]  # a chunk need not be an event
    wire = [framed(draw, part) for part in inside]
    parts = cut(draw, b"".join(wire), 60) if seed % 2 else wire
    head = EVENTS + b"transfer-encoding: chunked\r\n\r\n"
    play = _apart(head, *parts, b"0\r\n\r\n", seconds=0.001)
    async with Script(play=play) as engine, house(tmp_path, engine) as gateway, caller(gateway) as line:
        await line.send(asked(body=STREAMED))
        answer = await line.answer()
        [record] = await gateway.settled()
    assert (answer.status, answer.whole, answer.body) == (200, True, body)
    said = sum(event.count(b"word ") for event in [EVENT, *events])
    assert record.completion_tokens == -(-said * len("word ") // 4)
    assert record.bytes_out == len(body)


@pytest.mark.parametrize("head", [JSON + b"\r\n", JSON.replace(b"1.1", b"1.0") + b"\r\n"], ids=["1.1", "1.0"])
async def test_an_answer_without_a_length_ends_with_its_connection(tmp_path: Path, head: bytes) -> None:
    assert (await played(tmp_path, head + b'{"a":', b"1}", stays=False)).body == b'{"a":1}'


async def test_an_answer_without_a_length_that_breaks_off_does_not_look_whole(tmp_path: Path) -> None:
    """To HTTP/1.0 the end of the connection is the end of the answer, so a plain end would be a lie."""
    more = asyncio.Event()

    async def play(writer: asyncio.StreamWriter) -> bool:
        writer.write(JSON + b"transfer-encoding: chunked\r\n\r\n")
        while not more.is_set():  # one part may wait for the next before it is passed on
            writer.write(b"1\r\n[\r\n")
            await asyncio.sleep(0.005)
        return False

    async with Script(play=play) as engine, house(tmp_path, engine) as gateway, caller(gateway) as line:
        await line.send(asked(body=HELLO, version="1.0"))
        assert "content-length" not in (await line.head()).headers
        more.set()
        with pytest.raises(ConnectionResetError):
            await line.ended()
        assert (await gateway.settled())[0].status == 502


async def test_an_answer_that_can_have_no_body_has_none_the_second_time_either(tmp_path: Path) -> None:
    play = says(b"HTTP/1.1 204 No\r\ncontent-length: 2\r\n\r\n{}")
    async with Script(play=play) as engine, house(tmp_path, engine) as gateway:
        for _ in range(2):
            assert (await once(gateway, asked(body=HELLO))).body == b""


async def test_what_an_engine_says_too_much_is_never_the_next_callers(tmp_path: Path) -> None:
    double = (JSON + b"content-length: 2\r\n\r\n{}") + (JSON + b"content-length: 6\r\n\r\nsecret")
    async with scripted(tmp_path, double) as (gateway, engine), caller(gateway) as line:
        for number in range(1, 4):
            await line.send(asked(body=HELLO))
            assert (await line.answer()).body == b"{}"
            assert engine.connections == number  # none is used again


BROKEN = {
    "no HTTP": [b"hello\r\n\r\n"],
    "a change of protocol": [b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n\0\0"],
    "two lengths": [JSON + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} "],
    "a length and chunks": [JSON + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
    "a fold": [JSON + b"x-a: b\r\n c\r\ncontent-length: 2\r\n\r\n{}"],
    "a bare LF": [JSON + b"x-a: b\ncontent-length: 2\r\n\r\n{}"],
    "a wrong chunk": [JSON + b"transfer-encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n"],
    "a head without end": [JSON + b"x-a: " + b"y" * 200_000],
    "headers without end": [JSON, *(b"x-%d: %b\r\n" % (n, b"y" * 1000) for n in range(200))],
    "half a head": [JSON],
    "half a body": [JSON + b"content-length: 9\r\n\r\n{}"],
    "half a chunk": [JSON + b"transfer-encoding: chunked\r\n\r\n9\r\n{}"],
    "no last chunk": [JSON + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"],
    "nothing": [],
}


@pytest.mark.parametrize("parts", BROKEN.values(), ids=BROKEN.keys())
async def test_an_answer_that_is_broken_is_502_and_not_asked_again(tmp_path: Path, parts: list[bytes]) -> None:
    answer = await played(tmp_path, *parts, stays=False)
    assert (answer.status, answer.whole) == (502, True)
    assert answer.code in ("upstream_lost", "upstream_error")


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (JSON + b"x-a: ", b"y"),
        (JSON, b"x-a: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (JSON + b"transfer-encoding: chunked\r\n\r\n2;a=", b"y"),
        (JSON + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx-a: ", b"y"),
    ],
    ids=["a header", "headers", "notes on the way", "an extension", "a trailer"],
)
async def test_what_an_engine_says_without_end_is_not_kept(tmp_path: Path, start: bytes, more: bytes) -> None:
    async def play(writer: asyncio.StreamWriter) -> bool:
        writer.write(start)
        while not writer.is_closing():
            writer.write(more * 1000)
            await writer.drain()
            await asyncio.sleep(0)
        return False

    async with Script(play=play) as engine, house(tmp_path, engine) as gateway:
        answer = await once(gateway, asked(body=HELLO))
        assert (answer.status, answer.code) == (502, "upstream_lost")
        assert len(engine.seen) == 1


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-streams"])
async def test_an_answer_that_breaks_in_its_middle_is_seen_to_be_cut(tmp_path: Path, kind: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: 300000\r\n\r\n" % kind
    parts = [head, b"x" * 100_000, b"x" * 100_000]
    async with Script(play=_apart(*parts)) as engine, house(tmp_path, engine) as gateway:
        async with caller(gateway) as line:
            await line.send(asked(body=HELLO))
            answer = await line.answer()
        assert (answer.status, answer.whole) == (200, False)
        [record] = await gateway.settled()
        assert record.status == 502


def _apart(*parts: bytes, seconds: float = 0.05):  # type: ignore[no-untyped-def]
    async def play(writer: asyncio.StreamWriter) -> bool:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(seconds)
        return False

    return play
