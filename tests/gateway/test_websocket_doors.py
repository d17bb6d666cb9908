"""Who may open a websocket and until when, and what is no handshake of one: refused in plain HTTP."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from gateway import tunnel
from gateway.client import Limits
from gateway.routes import Admission, Key, Quotas, RouteTable, digest
from tests.gateway.caller import AUTH, Script, asked, caller, once, says
from tests.gateway.house import ALICE, CHARLIE, KEYS, House, house, until
from tests.gateway.sockets import KEY, WISH, Speaker, attempt, dialled, ending, open_now, opened, wish


@pytest.fixture
async def speaker() -> AsyncIterator[Speaker]:
    async with Speaker() as one:
        yield one


@pytest.fixture
async def gateway(tmp_path: Path, speaker: Speaker) -> AsyncIterator[House]:
    async with house(tmp_path, open=True, instances=(speaker.upstream(),)) as running:
        yield running


def rules(gateway: House, keys: dict[str, Key] | None = None, **changes: Any) -> None:
    """The world changes, as a refresh would tell."""
    route = replace(gateway.app.gateway.table.routes["tiny"], **changes)
    gateway.store.table = RouteTable([route], KEYS if keys is None else keys)
    gateway.app.gateway.take_table(gateway.store.table)


# ── who may, and until when ──────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"key": None}, 401, "missing_api_key"),
        ({"key": "tir_nobody"}, 401, "invalid_api_key"),
        ({"key": CHARLIE}, 403, "other_project"),
        ({"path": "/e/other/ws"}, 404, "endpoint_not_found"),
        ({"path": "/e/tiny/../ws"}, 400, "invalid_url"),
        ({"origin": "https://evil.example"}, 403, "origin_not_allowed"),
        ({"path": "/e/tiny/plain"}, 418, None),
    ],
)
async def test_a_refusal_is_a_plain_answer(
    gateway: House, options: dict[str, Any], status: int, code: str | None
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await attempt(gateway, **options)
    answer = refused.value.response
    assert answer.status_code == status
    if code is None:
        assert answer.body == b"no socket here\n"  # the instance's own
    else:
        assert f'"code":"{code}"'.encode() in bytes(answer.body or b"")
    await until(lambda: not gateway.server.lines, "the connection to end")
    assert open_now(gateway) == 0
    assert gateway.app.gateway.balancer.in_flight == {}


async def test_an_origin_that_the_endpoint_names_may(tmp_path: Path, speaker: Speaker) -> None:
    admission = Admission(origins=frozenset({b"https://app.example"}))
    facts: dict[str, Any] = {"open": True, "admission": admission, "instances": (speaker.upstream(),)}
    async with house(tmp_path, **facts) as gateway:
        async with dialled(gateway, origin="https://app.example") as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
        with pytest.raises(InvalidStatus):
            await attempt(gateway, origin="https://app.example.evil.example")


async def test_a_place_is_held_as_long_as_the_socket_lives_and_free_after_any_end(
    tmp_path: Path, speaker: Speaker
) -> None:
    admission = Admission(quotas=Quotas(concurrent_requests=1))
    facts: dict[str, Any] = {"open": True, "admission": admission, "instances": (speaker.upstream(),)}
    async with house(tmp_path, **facts) as gateway:

        async def full() -> None:
            with pytest.raises(InvalidStatus) as refused:
                await attempt(gateway)
            assert refused.value.response.status_code == 429
            assert "retry-after" in refused.value.response.headers

        async with dialled(gateway):
            await full()
        await until(lambda: len(gateway.records) == 2, "its end")
        async with caller(gateway) as line:
            await opened(line)
            await full()
            line.hang_up()
        await until(lambda: len(gateway.records) == 4, "its abrupt end")
        async with dialled(gateway) as socket:
            await socket.send("free again")
            assert await socket.recv() == "free again"


OTHER_KEYS = {name: key for name, key in KEYS.items() if name != digest(ALICE)}


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"keys": OTHER_KEYS}, 1008, "The API key is no longer known here."),
        ({"keys": {digest(ALICE): Key(1, 1, endpoints=frozenset({6}))}}, 1008, "may not call the endpoint tiny"),
        ({"keys": {digest(ALICE): Key(1, 1, expires_at=datetime(2026, 1, 1, tzinfo=UTC))}}, 1008, "has expired"),
        ({"desired": "stopped", "state_by": "Bob"}, 1001, "The endpoint tiny was stopped by Bob"),
    ],
)
async def test_who_may_no_longer_call_is_put_out(
    gateway: House, speaker: Speaker, change: dict[str, Any], code: int, reason: str
) -> None:
    async with dialled(gateway) as socket:
        await socket.send("hello")
        await socket.recv()
        rules(gateway, bodies_one_in=0)  # any other change of the world
        await socket.send("still here")
        assert await socket.recv() == "still here"
        rules(gateway, **change)
        ended = await ending(socket)
        assert ended[0] == code
        assert reason in ended[1]
    await until(lambda: [one for one, _ in speaker.ended] == [code], "the instance to hear it")
    [record] = await gateway.settled()
    assert record.status == 101
    assert gateway.app.gateway.balancer.troubled == {}


async def test_a_socket_in_which_nothing_moves_is_ended(tmp_path: Path, speaker: Speaker) -> None:
    limits = Limits(socket_idle_seconds=0.0)
    async with house(tmp_path, limits=limits, open=True, instances=(speaker.upstream(),)) as gateway:
        async with dialled(gateway) as socket:
            assert await ending(socket) == (1001, "Nothing moved for too long.")
        await until(lambda: [one for one, _ in speaker.ended] == [1001], "the instance to hear it")


async def test_who_hears_the_goodbye_and_stays_is_cut_off(gateway: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "GOODBYE_SECONDS", 0.0)
    async with caller(gateway) as line:
        await opened(line)
        rules(gateway, keys=OTHER_KEYS)
        assert (await line.ended()).startswith(b"\x88")
    await gateway.settled()


# ── what is no handshake ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (WISH, 400),
        ((*WISH, "sec-websocket-key: short"), 400),
        ((*WISH, KEY, KEY), 400),
        ((*WISH[:2], "sec-websocket-version: 8", KEY), 426),
        ((*WISH[:2], KEY), 426),
        ((*WISH, KEY, "content-length: 5"), 400),
        ((*WISH, KEY, "transfer-encoding: chunked"), 400),
        ((*WISH, KEY, "content-length: 5", "transfer-encoding: chunked"), 400),
        ((*WISH, KEY, AUTH), 400),
    ],
)
async def test_what_is_no_handshake_is_refused_and_nothing_behind_it_is_read(
    gateway: House, speaker: Speaker, lines: tuple[str, ...], status: int
) -> None:
    async with caller(gateway) as line:
        await line.send(wish(*lines) + asked("GET", "/healthz"))
        answer = await line.answer()
        assert (answer.status, answer.closes) == (status, True)
        assert answer.code
        if status == 426:
            assert answer.headers["sec-websocket-version"] == "13"
        assert await line.ended() == b""
    assert speaker.requests == []


async def test_other_wishes_are_passed_over(gateway: House, speaker: Speaker) -> None:
    upgrades = (
        wish("connection: upgrade", "upgrade: h2c", target="/e/tiny/plain"),
        wish("upgrade: websocket", KEY, target="/e/tiny/plain"),  # not said of this connection
        wish(*WISH, KEY, target="/e/tiny/plain", version="1.0"),
    )
    for data in upgrades:
        await once(gateway, data)
    for request in speaker.requests:
        assert "upgrade" not in request.headers
        assert "connection" not in request.headers


async def test_where_no_websockets_are_one_is_asked_as_if_without_the_wish(tmp_path: Path) -> None:
    engine = Script(play=says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"))
    async with engine, house(tmp_path, engine) as gateway:
        assert (await once(gateway, wish(target="/e/tiny/ws"))).status == 404
        assert (await once(gateway, wish(target="/e/tiny/v1/models"))).status == 200
        assert "upgrade" not in "".join(engine.heads)


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1 101 Yes\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n",
        "HTTP/1.1 101 Yes\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 Yes\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 Yes\r\nno colon\r\n\r\n",
        "nonsense",
        "",
    ],
)
async def test_an_instance_that_agrees_to_something_else_is_not_believed(tmp_path: Path, head: str) -> None:
    async with (
        Script(play=says(head.encode(), stays=False)) as engine,
        house(tmp_path, engine, open=True) as gateway,
    ):
        answer = await once(gateway, wish())
        assert answer.status == 502
        [record] = await gateway.settled()
        assert record.status == 502
        assert len(engine.heads) == 1  # asked once
        assert open_now(gateway) == 0
