"""HTTP/1.1 as callers may speak it: connections that stay, requests in a row, versions, targets and hosts."""

import asyncio
import socket
from pathlib import Path

import pytest

from gateway import line as transport
from tests.gateway.caller import CHAT, HELLO, MODELS, STREAMED, asked, caller, chunked, once, still_serves
from tests.gateway.engine import Engine
from tests.gateway.house import House, house, until


# ── one after the other ──────────────────────────────────────────────────────────────────────────
async def test_one_connection_carries_many_requests(gateway: House) -> None:
    async with caller(gateway) as line:
        for body in (HELLO, STREAMED, HELLO):
            await line.send(asked(body=body))
            answer = await line.answer()
            assert (answer.status, answer.whole, answer.closes) == (200, True, False)
        assert len(gateway.server.lines) == 1


async def test_a_refusal_of_ours_keeps_the_connection(gateway: House) -> None:
    async with caller(gateway) as line:
        for target, status in (("/e/tiny/v1/nothing", 404), ("/e/nowhere/v1/models", 404), (MODELS, 200)):
            await line.send(asked("GET", target))
            answer = await line.answer()
            assert (answer.status, answer.closes) == (status, False)


async def test_a_wish_to_close_is_granted(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, "Connection: Close", body=HELLO))
        answer = await line.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert await line.ended() == b""


@pytest.mark.parametrize("lines", [("connection: te, close",), ("connection: close", "connection: keep-alive")])
async def test_a_wish_to_close_is_found_among_others(gateway: House, lines: tuple[str, ...]) -> None:
    async with caller(gateway) as line:
        await line.send(asked("GET", "/healthz", *lines))
        assert (await line.answer()).closes
        assert await line.ended() == b""


async def test_a_head_in_single_bytes_is_read(gateway: House) -> None:
    async with caller(gateway) as line:
        for byte in asked(body=HELLO):
            await line.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await line.answer()).status == 200


async def test_empty_lines_before_a_request_are_passed_over(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(b"\r\n\r\n" + asked("GET", MODELS) + b"\r\n" + asked("GET", MODELS))
        assert [(await line.answer()).status for _ in range(2)] == [200, 200]


async def test_every_answer_has_a_date_and_an_id_even_to_what_could_not_be_read(gateway: House) -> None:
    unread = (b"what\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", asked("GET", MODELS, "x-a: " + "y" * 70_000))
    answers = [await once(gateway, data) for data in (asked("GET", "/healthz"), *unread)]
    assert [answer.status for answer in answers] == [200, 400, 400, 431]
    assert all(answer.headers["date"].endswith("GMT") for answer in answers)
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert (len(ids), {len(one) for one in ids}) == (4, {32})


# ── pipelining ───────────────────────────────────────────────────────────────────────────────────
async def test_pipelined_requests_are_answered_in_order_and_each_its_own(gateway: House, engine: Engine) -> None:
    engine.pause = 0.02  # what needs no engine would be ready sooner
    row = [
        asked("POST", CHAT, "x-request-id: a", body=HELLO),
        asked("GET", "/healthz", "x-request-id: b"),
        asked("POST", CHAT, "x-request-id: c", "transfer-encoding: chunked") + chunked(HELLO[:9], HELLO[9:]),
        asked("POST", CHAT, "x-request-id: d", body=STREAMED),
        asked("GET", "/nothing", "x-request-id: e"),
        asked("GET", MODELS, "x-request-id: f"),
    ]
    async with caller(gateway) as line:
        await line.send(b"".join(row))
        answers = [await line.answer() for _ in row]
    assert [answer.headers["x-request-id"] for answer in answers] == ["a", "b", "c", "d", "e", "f"]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 200]
    assert b"choices" in answers[0].body
    assert answers[1].json()["status"] == "ok"
    assert answers[3].body.endswith(b"data: [DONE]\n\n")
    assert answers[5].json()["data"] == [{"id": "tiny"}]
    assert all(answer.whole for answer in answers)


async def test_only_one_of_a_row_is_at_the_engine_at_a_time(gateway: House, engine: Engine) -> None:
    engine.behaviour = "hang"
    async with caller(gateway) as line:
        await line.send(asked(body=HELLO) * 5)
        await until(lambda: len(engine.seen) == 1, "the first to be asked")
        await line.send(asked(body=HELLO))
        for _ in range(10):
            await asyncio.sleep(0.005)
        assert (engine.open, len(engine.seen)) == (1, 1)
        engine.behaviour = "good"
        engine.hold.set()
        assert [(await line.answer()).status for _ in range(6)] == [200] * 6


async def test_a_row_without_end_is_not_read_without_end(gateway: House, engine: Engine) -> None:
    engine.behaviour = "hang"
    flood = asked(body=HELLO) * 1000
    async with caller(gateway) as line:
        line.writer.transport.set_write_buffer_limits(high=0)
        sending = asyncio.create_task(_flood(line.send, flood, times=200))  # some 38 MB
        await until(lambda: len(engine.seen) == 1, "the first to be asked")
        [one] = gateway.server.lines
        before = -1
        while before != len(one.waiting):
            before = len(one.waiting)
            await asyncio.sleep(0.1)
        assert 0 < len(one.waiting) * len(asked(body=HELLO)) < 2**20
        assert not sending.done()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _flood(send: object, data: bytes, *, times: int) -> None:
    for _ in range(times):
        await send(data)  # type: ignore[operator]


async def test_what_cannot_be_read_is_refused_after_what_came_before_it(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(asked("GET", MODELS) * 2 + b"NONSENSE\r\n\r\n" + asked("GET", MODELS))
        assert [(await line.answer()).status for _ in range(2)] == [200, 200]
        last = await line.answer()
        assert (last.status, last.code, last.closes) == (400, "invalid_request", True)
        assert await line.ended() == b""


async def test_what_follows_a_wish_to_close_is_not_answered(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(asked("GET", MODELS, "connection: close") + asked("GET", MODELS))
        assert (await line.answer()).status == 200
        assert await line.ended() == b""


# ── versions ─────────────────────────────────────────────────────────────────────────────────────
async def test_http_1_0_closes_after_its_answer(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(asked(body=HELLO, version="1.0", host=()))
        answer = await line.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert await line.ended() == b""


async def test_http_1_0_keeps_the_connection_when_asked(gateway: House) -> None:
    async with caller(gateway) as line:
        for _ in range(2):
            await line.send(asked("GET", MODELS, "Connection: Keep-Alive", version="1.0", host=()))
            answer = await line.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")


async def test_http_1_0_gets_a_stream_without_chunks_and_its_end_is_the_connections(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, "connection: keep-alive", body=STREAMED, version="1.0", host=()))
        answer = await line.answer()
    assert answer.closes
    assert "transfer-encoding" not in answer.headers
    assert answer.body.startswith(b"data: {")
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_http_1_0_is_never_told_to_continue(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", CHAT, "expect: 100-continue", body=HELLO, version="1.0")[:-5])
        await line.send(HELLO[-5:])
        assert (await line.answer()).status == 200


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 400),
        (b"GET / HTTP/2.0\r\nhost: x\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nhost: x\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 60, 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
        (b"get /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ],
    ids=["preface of 2.0", "2.0", "1.2", "0.9", "TLS", "SSH", "a method in lower case"],
)
async def test_other_protocols_are_told_and_hung_up_on(gateway: House, said: bytes, status: int) -> None:
    async with caller(gateway) as line:
        await line.send(said)
        answer = await line.answer()
        assert (answer.version, answer.status, answer.closes) == ("HTTP/1.1", status, True)
        assert answer.code in ("invalid_request", "http_version")
        assert await line.ended() == b""


# ── methods, targets, hosts ──────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("target", "status"), [("/healthz", 200), ("/e/tiny/health", 200), (MODELS, 405)])
async def test_head_is_answered_without_a_body(gateway: House, target: str, status: int) -> None:
    async with caller(gateway) as line:
        await line.send(asked("HEAD", target) + asked("GET", "/healthz"))
        answer = await line.answer(mute=True)
        assert answer.status == status
        assert int(answer.headers["content-length"]) > 0
        assert (await line.answer()).json()["status"] == "ok"  # nothing in between


@pytest.mark.parametrize("target", [CHAT, MODELS, "/healthz"])
async def test_options_of_no_browser_says_what_is_allowed(gateway: House, engine: Engine, target: str) -> None:
    answer = await once(gateway, asked("OPTIONS", target))
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["allow"] in ("GET", "POST")
    assert engine.heads == []


async def test_options_of_the_whole_server_is_answered_and_keeps_the_connection(gateway: House) -> None:
    answer = await once(gateway, asked("OPTIONS", "*"))
    assert (answer.status, answer.code, answer.closes) == (404, "unknown_url", False)


async def test_connect_is_no_tunnel(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        await line.send(asked("CONNECT", f"127.0.0.1:{engine.port}"))
        answer = await line.answer()
        assert (answer.status, answer.code, answer.closes) == (405, "method_not_allowed", True)
        assert await line.ended() == b""
    assert engine.connections == 0


async def test_an_absolute_target_names_the_host_itself(gateway: House, engine: Engine) -> None:
    target = "http://tiny.local.localhost:8080/v1/models?x=1"
    answer = await once(gateway, asked("GET", target, host=("host: tiny.moon.localhost",)))
    assert answer.status == 200  # RFC 9112 3.2.2: the target's host counts, not the header's
    assert engine.heads[-1].startswith("GET /v1/models HTTP/1.1\r\n")


@pytest.mark.parametrize("target", ["http://", "x:1", "example.org:80", "/ü"])
async def test_a_target_that_is_none_is_refused(gateway: House, engine: Engine, target: str) -> None:
    answer = await once(gateway, asked("GET", target))
    assert (answer.status, answer.closes) == (400, True)
    assert answer.code in ("invalid_request", "invalid_url")
    assert engine.heads == []


async def test_a_query_and_a_fragment_do_not_hide_a_path(gateway: House) -> None:
    assert (await once(gateway, asked("GET", f"{MODELS}?limit=1&x=/e/other"))).status == 200


@pytest.mark.parametrize("target", ["/e/tiny/v1/../v1/models", "/e/tiny//v1/models", "//e/tiny/v1/models"])
async def test_paths_are_taken_as_they_are(gateway: House, engine: Engine, target: str) -> None:
    assert (await once(gateway, asked("GET", target))).status == 404
    assert engine.heads == []


@pytest.mark.parametrize("host", [(), ("host: x", "host: x"), ("host: x", "Host: y")], ids=["none", "2", "other"])
async def test_exactly_one_host_is_wanted(gateway: House, engine: Engine, host: tuple[str, ...]) -> None:
    async with caller(gateway) as line:
        await line.send(asked("GET", MODELS, host=host))
        answer = await line.answer()
        assert (answer.status, answer.code, answer.closes) == (400, "invalid_request", True)
        assert "Host" in answer.json()["error"]["message"]
        assert await line.ended() == b""
    assert engine.heads == []


# ── wishes for another protocol ──────────────────────────────────────────────────────────────────
H2C = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA")


async def test_a_wish_for_h2c_is_passed_over_with_and_without_a_body(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        await line.send(asked("GET", MODELS, *H2C))
        assert (await line.answer()).json()["data"] == [{"id": "tiny"}]
        await line.send(asked("POST", CHAT, *H2C, body=HELLO))
        assert (await line.answer()).status == 200
        await line.send(asked("POST", CHAT, *H2C, "transfer-encoding: chunked") + chunked(HELLO[:7], HELLO[7:]))
        assert (await line.answer()).status == 200
    assert engine.seen[-1]["messages"] == engine.seen[-2]["messages"] == [{"role": "user", "content": "hello"}]
    assert "upgrade" not in "".join(engine.heads).lower()


async def test_a_wish_for_a_websocket_is_passed_over(gateway: House) -> None:
    lines = ("connection: upgrade", "upgrade: websocket", "sec-websocket-key: x", "sec-websocket-version: 13")
    answer = await once(gateway, asked("GET", MODELS, *lines))
    assert answer.status == 200
    assert "upgrade" not in answer.headers


async def test_a_wish_told_to_a_proxy_is_passed_over_or_granted(gateway: House) -> None:
    lines = ("proxy-connection: upgrade", "upgrade: websocket")
    assert (await once(gateway, asked("GET", MODELS, *lines))).status == 200
    async with caller(gateway) as line:  # the parser reads nothing behind it, so nothing is promised
        await line.send(asked("GET", MODELS, "proxy-connection: close"))
        assert (await line.answer()).closes
        assert await line.ended() == b""


async def test_a_wish_cut_anywhere_is_read_the_same(gateway: House) -> None:
    whole = asked("POST", CHAT, *H2C, body=HELLO)
    async with caller(gateway) as line:
        for cut in range(1, len(whole), 7):
            await line.send(whole[:cut])
            await asyncio.sleep(0.001)
            await line.send(whole[cut:])
            assert (await line.answer()).status == 200


async def test_a_wish_changes_nothing_else_of_the_request(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(asked("GET", MODELS, "connection: upgrade", "upgrade: h2c", version="1.0"))
        assert (await line.answer()).closes  # still HTTP/1.0
        assert await line.ended() == b""
    async with caller(gateway) as line:
        await line.send(asked("GET", MODELS, "connection: upgrade, close", "upgrade: h2c"))
        assert (await line.answer()).closes
        assert await line.ended() == b""


async def test_a_row_of_wishes_is_answered_one_by_one(gateway: House) -> None:
    count = 1500  # deeper than the stack
    async with caller(gateway) as line:
        sending = asyncio.create_task(line.send(asked("GET", "/healthz", *H2C[:2]) * count))
        for _ in range(count):
            assert (await line.answer()).status == 200
        await sending


# ── the socket ───────────────────────────────────────────────────────────────────────────────────
async def test_small_answers_are_not_held_back(gateway: House) -> None:
    async with caller(gateway) as line:
        await line.send(asked("GET", MODELS))
        await line.answer()
        [one] = gateway.server.lines
        assert one.transport is not None
        accepted = one.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        [waiting] = gateway.app.gateway.pool.idle.values()
        assert waiting[0].transport is not None
        towards = waiting[0].transport.get_extra_info("socket")
        assert towards.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_a_quiet_connection_is_closed_in_time(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, engine) as gateway, caller(gateway) as used:
        await until(lambda: gateway.server.lines, "it to be there")
        with monkeypatch.context() as hasty:
            hasty.setattr(transport, "IDLE_SECONDS", 0.01)
            await used.send(asked("GET", MODELS))
            await used.answer()
            async with caller(gateway) as fresh:
                assert await fresh.ended() == b""
            assert await used.ended() == b""
        await until(lambda: not gateway.server.lines, "both to be let go")
        await still_serves(gateway)
