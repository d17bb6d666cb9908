"""Request bodies: chunks, lengths that lie, callers that ask first, and answers before the end."""

import asyncio
import tracemalloc

import pytest

from gateway import line as transport
from tests.gateway.caller import (
    CHAT,
    CHUNKED,
    HELLO,
    MODELS,
    Caller,
    announced,
    asked,
    caller,
    chunked,
    once,
    still_serves,
)
from tests.gateway.engine import Engine
from tests.gateway.house import House, until

EXPECT = "expect: 100-continue"
MESSAGES = [{"role": "user", "content": "hello"}]


# ── chunks ───────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "body",
    [
        chunked(HELLO),
        chunked(*(bytes([byte]) for byte in HELLO)),
        b"0030\r\n" + HELLO + b"\r\n000\r\n\r\n",
        b'30;a=b;c="d;e";f\r\n' + HELLO + b"\r\n0;last\r\n\r\n",
        chunked(HELLO, last=b"0\r\nx-sum: 1\r\nx-other: 2\r\n\r\n"),
        chunked(HELLO, last=b"0\r\nauthorization: Bearer none\r\nhost: y\r\nx-request-id: z\r\n\r\n"),
    ],
    ids=["one", "of a byte each", "zeros before", "extensions", "trailers", "trailers like headers"],
)
@pytest.mark.parametrize("cut", [None, 1], ids=["at once", "byte by byte"])
async def test_a_chunked_body_is_put_together(
    gateway: House, engine: Engine, body: bytes, cut: int | None
) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, CHUNKED, "x-request-id: mine"))
        for at in range(0, len(body), cut or len(body)):
            await line.send(body[at : at + (cut or len(body))])
            await asyncio.sleep(0)
        answer = await line.answer()
        assert (answer.status, answer.headers["x-request-id"], answer.closes) == (200, "mine", False)
        await line.send(asked("GET", MODELS))
        assert (await line.answer()).status == 200
    assert engine.seen[0]["messages"] == MESSAGES
    assert "content-length" in engine.heads[0]
    assert "transfer-encoding" not in engine.heads[0]
    assert "x-sum" not in engine.heads[0]


async def test_a_coding_in_capitals_is_one(gateway: House, engine: Engine) -> None:
    assert (await once(gateway, asked("POST", CHAT, "Transfer-Encoding: Chunked") + chunked(HELLO))).status == 200
    assert engine.seen[0]["messages"] == MESSAGES


async def test_trailers_without_end_are_refused_and_not_kept(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, CHUNKED) + chunked(HELLO, last=b"0\r\n"))
        sending = asyncio.create_task(_pour(line, b"x-trailer-%d: " + b"y" * 1000 + b"\r\n"))
        answer = await line.answer()
        assert (answer.status, answer.code, answer.closes) == (431, "headers_too_large", True)
        line.hang_up()
        await sending
    assert engine.seen == []


async def test_one_trailer_without_end_is_refused_and_not_kept(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, CHUNKED) + chunked(HELLO, last=b"0\r\nx-long: "))
        sending = asyncio.create_task(_pour(line, b"y" * 1000))
        assert (await line.answer()).status == 431
        line.hang_up()
        await sending
    assert engine.seen == []


async def test_an_extension_without_end_is_refused(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, CHUNKED) + b"30;ext=")
        sending = asyncio.create_task(_pour(line, b"y" * 1000))
        assert (await line.answer()).status == 431
        line.hang_up()
        await sending
    assert engine.seen == []


async def _send_on(line: Caller, data: bytes) -> None:
    for _ in range(10_000):
        await line.send(data)
        await asyncio.sleep(0.001)


async def _pour(line: Caller, data: bytes, *, most: int = 10_000) -> None:
    """Send the same over and over until the gateway has enough."""
    try:
        for number in range(most):
            await line.send(data % number if b"%d" in data else data)
            await asyncio.sleep(0)
    except ConnectionError:
        pass


# ── lengths that lie ─────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "head", [announced(100), asked("POST", CHAT, CHUNKED) + b"64\r\n"], ids=["length", "chunk"]
)
async def test_a_body_cut_short_reaches_no_engine(gateway: House, engine: Engine, head: bytes) -> None:
    async with caller(gateway) as line:
        await line.send(head + HELLO)
        await until(lambda: any(one.call for one in gateway.server.lines), "the request to be under way")
        line.hang_up()
        [record] = await gateway.settled()
        assert record.status == 499
    await until(lambda: not gateway.server.lines, "the connection to be let go")
    assert engine.seen == []
    assert gateway.app.gateway.balancer.in_flight == {}
    await still_serves(gateway)


async def test_a_half_closed_connection_is_one_that_left(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        await line.send(announced(100) + HELLO)
        line.writer.write_eof()
        assert await line.ended() == b""
    [record] = await gateway.settled()
    assert record.status == 499
    assert engine.seen == []


async def test_more_than_announced_is_the_next_request(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        await line.send(announced(len(HELLO)) + HELLO + b"and more\r\n\r\n")
        assert (await line.answer()).status == 200
        answer = await line.answer()
        assert (answer.status, answer.code, answer.closes) == (400, "invalid_request", True)
        assert await line.ended() == b""
    assert engine.seen[0]["messages"] == MESSAGES
    assert len(engine.seen) == 1


async def test_a_post_without_a_body_is_told_what_is_missing(gateway: House, engine: Engine) -> None:
    answer = await once(gateway, asked("POST", CHAT))
    assert (answer.status, answer.code) == (400, "invalid_json")
    assert engine.seen == []


# ── who asks first ───────────────────────────────────────────────────────────────────────────────
async def test_who_asks_first_is_told_to_go_on(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        for _ in range(2):
            await line.send(announced(len(HELLO), EXPECT))
            head = await line.head()
            assert (head.version, head.status, head.headers) == ("HTTP/1.1", 100, {})
            await line.send(HELLO)
            answer = await line.answer()
            assert (answer.status, answer.closes) == (200, False)
    assert [seen["messages"] for seen in engine.seen] == [MESSAGES] * 2
    assert "expect" not in engine.heads[0].lower()


async def test_who_asks_first_with_chunks_is_told_to_go_on(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, CHUNKED, "Expect: 100-Continue"))
        assert (await line.head()).status == 100
        await line.send(chunked(HELLO))
        assert (await line.answer()).status == 200


async def test_who_asks_and_does_not_wait_is_served_all_the_same(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, EXPECT, body=HELLO))
        answer = await line.answer()
        assert answer.status in (100, 200)
        if answer.status == 100:
            answer = await line.answer()
        assert answer.status == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (announced(10 * 2**20, EXPECT), 413),
        (announced(10, EXPECT).replace(b"tir_alice", b"tir_mallo"), 401),
        (announced(10, EXPECT, target="/e/nowhere/v1/chat/completions"), 404),
        (announced(10, EXPECT, target=MODELS), 405),
        (announced(10, EXPECT, "content-encoding: gzip"), 415),
    ],
    ids=["too large", "no key", "nowhere", "wrong method", "encoded"],
)
async def test_who_asks_first_in_vain_never_sends(
    gateway: House, engine: Engine, head: bytes, status: int
) -> None:
    async with caller(gateway) as line:
        await line.send(head)
        answer = await line.answer()  # and no 100 before it
        assert (answer.status, answer.closes) == (status, True)
        assert answer.code
        assert await line.ended() == b""
    assert engine.heads == []


# ── answers before the end of the body ───────────────────────────────────────────────────────────
@pytest.mark.parametrize(("target", "key", "status"), [("/e/tiny/v1/no", b"alice", 404), (CHAT, b"mallo", 401)])
async def test_an_early_answer_is_read_and_not_a_reset(
    gateway: House, target: str, key: bytes, status: int
) -> None:
    """Many megabytes are still on their way when the answer is known."""
    for _ in range(3):
        async with caller(gateway) as line:
            await line.send(announced(24 * 2**20, target=target).replace(b"alice", key))
            sending = asyncio.create_task(line.send(b"x" * 24 * 2**20))
            answer = await line.answer()
            assert (answer.status, answer.whole) == (status, True)
            assert answer.code
            await asyncio.wait_for(sending, 60)  # taken and thrown away
            if answer.closes:
                assert await line.ended() == b""
    await until(lambda: not gateway.server.lines, "every connection to be let go")


async def test_who_sends_on_after_an_early_answer_is_cut_in_the_end(
    gateway: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "LINGER_SECONDS", 0.05)
    async with caller(gateway) as line:
        await line.send(asked("POST", "/e/tiny/v1/nothing", CHUNKED))
        assert (await line.answer()).status == 404
        with pytest.raises(ConnectionError):
            await _send_on(line, b"1\r\nx\r\n")
    await until(lambda: not gateway.server.lines, "the connection to be let go")


async def test_a_body_nobody_asked_for_is_not_kept(gateway: House, engine: Engine) -> None:
    engine.behaviour = "hang"  # before it looks at the path
    async with caller(gateway) as line:
        await line.send(asked("GET", MODELS, CHUNKED))
        await until(lambda: engine.open == 1, "the engine to be asked")
        [one] = gateway.server.lines
        assert one.call is not None
        for _ in range(24):
            await line.send(chunked(b"x" * 2**20, last=b""))
        await until(lambda: one.call is None or one.call.size > 16 * 2**20, "most of it to come")
        assert len(one.call._got) <= gateway.app.gateway.limits.body_bytes
        engine.hold.set()
        answer = await line.answer()
        assert (answer.status, answer.closes) == (200, True)


async def test_a_body_of_tiny_chunks_weighs_what_it_is(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, CHUNKED))
        await until(lambda: any(one.call for one in gateway.server.lines), "the request to be under way")
        [one] = gateway.server.lines
        assert one.call is not None
        part = chunked(*[b"  "] * 10_000, last=b"")
        tracemalloc.start()
        for _ in range(10):
            await line.send(part)
        await until(lambda: one.call is None or one.call.size == 200_000, "it to come")
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 2**20
        await line.send(chunked(HELLO))
        assert (await line.answer()).status == 200
    assert engine.seen[0]["messages"] == MESSAGES
