"""Endpoints whose engine has paths of its own: any path, method and body pass, and everything else holds."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.client import Limits
from gateway.rewrite import Prepared, prepare
from gateway.routes import Admission, Quotas, Route, RouteTable, digest
from gateway.telemetry import Options
from tests.gateway.caller import asked, caller, chunked, once
from tests.gateway.container import Asked, Container, plain
from tests.gateway.engine import Engine
from tests.gateway.house import ALICE, CHARLIE, House, house, until

HOST = "tiny.local.example.com"


@pytest.fixture
async def container() -> AsyncIterator[Container]:
    async with Container() as one:
        yield one


@pytest.fixture
async def gateway(tmp_path: Path, container: Container) -> AsyncIterator[House]:
    async with house(tmp_path, container, open=True) as running:
        yield running


# ── what passes ──────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_passes_with_its_path_query_and_body(
    gateway: House, container: Container, method: str
) -> None:
    body = b"\x00\xff not json" if method not in ("GET", "OPTIONS") else b""
    answer = await gateway.call.request(method, "/e/tiny/predict/a%2Fb%20c//d?x=1&x=%C3%A4&empty=", content=body)
    assert (answer.status_code, answer.content) == (200, b"done")
    [one] = container.asked
    assert (one.method, one.target) == (method, "/predict/a%2Fb%20c//d?x=1&x=%C3%A4&empty=")
    assert one.body == body
    [record] = await gateway.settled()
    assert (record.status, record.bytes_in, record.bytes_out) == (200, len(body), 4)
    assert (record.prompt_tokens, record.completion_tokens, record.key_id) == (0, 0, 1)


async def test_a_body_in_chunks_arrives_with_its_length(gateway: House, container: Container) -> None:
    data = asked("PUT", "/e/tiny/files/1", "transfer-encoding: chunked", "content-type: image/png")
    assert (await once(gateway, data + chunked(b"\x89PNG", b"rest"))).status == 200
    [one] = container.asked
    assert (one.body, one.one("content-length"), one.one("content-type")) == (b"\x89PNGrest", "8", "image/png")
    assert one.one("transfer-encoding") is None


async def test_a_call_without_a_body_says_so_only_where_one_is_expected(
    gateway: House, container: Container
) -> None:
    for method in ("GET", "DELETE", "POST"):
        await once(gateway, asked(method, "/e/tiny/x"))
    assert [one.one("content-length") for one in container.asked] == [None, None, "0"]


async def test_the_answer_to_head_has_a_length_and_no_body(gateway: House, container: Container) -> None:
    container.say(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\netag: a\r\n\r\n")
    async with caller(gateway) as line:
        for _ in range(2):
            await line.send(asked("HEAD", "/e/tiny/big"))
            answer = await line.answer(mute=True)
            assert (answer.status, answer.headers["content-length"], answer.headers["etag"]) == (200, "9999", "a")
        container.say(plain())
        await line.send(asked("GET", "/e/tiny/big"))
        assert (await line.answer()).body == b"done"


async def test_the_endpoints_own_address_passes_everything_too(gateway: House, container: Container) -> None:
    for path in ("/", "/predict?a=b", "/metrics", "/healthz", "/v1/models/tiny:predict", "*"):
        answer = await once(gateway, asked("GET", path, host=(f"host: {HOST}",)))
        assert answer.status == (400 if path == "*" else 200), path
    assert [one.target for one in container.asked] == [
        "/", "/predict?a=b", "/metrics", "/healthz", "/v1/models/tiny:predict",
    ]  # fmt: skip
    assert (await once(gateway, asked("GET", "/healthz"))).json()["endpoints"] == 1  # at any other address: ours
    assert (await once(gateway, asked("GET", "/e/tiny"))).status == 200
    assert container.asked[-1].target == "/"


async def test_openais_paths_are_read_as_everywhere(gateway: House, container: Container) -> None:
    container.say(plain("content-type: application/json", body=b'{"usage":{"prompt_tokens":3}}'))
    assert (await gateway.ask(model="other")).json()["error"]["code"] == "model_not_found"
    assert (await gateway.ask()).status_code == 200
    [one] = container.asked
    assert b'"model":"tiny"' in one.body
    assert (await gateway.call.get("/e/tiny/v1/chat/completions")).status_code == 200  # a page of its own, if any
    assert container.asked[-1].method == "GET"


async def test_our_own_paths_stay_ours(gateway: House, container: Container) -> None:
    assert (await gateway.call.get("/e/tiny/health")).json() == {"status": "ready"}
    assert (await gateway.call.get("/e/tiny/v1/async/status/x")).status_code == 404
    assert container.asked == []


async def test_other_endpoints_have_openais_paths_only(tmp_path: Path, engine: Engine) -> None:
    async with house(tmp_path, engine) as gateway:
        assert (await gateway.call.get("/e/tiny/predict")).json()["error"]["code"] == "unknown_url"
        assert (await gateway.call.put("/e/tiny/v1/models")).status_code == 405
        gateway.route(open=True)
        assert (await gateway.call.get("/e/tiny/predict")).status_code == 200
        gateway.route(open=False)
        assert (await gateway.call.get("/e/tiny/predict")).status_code == 404


# ── heads ────────────────────────────────────────────────────────────────────────────────────────
async def test_headers_pass_but_those_of_the_connection_and_the_callers_key(
    gateway: House, container: Container
) -> None:
    lines: tuple[str, ...] = (
        "connection: close, X-Hop",
        "x-hop: 1",
        "te: trailers",
        "keep-alive: 5",
        "accept: a/b",
        "accept: c/d",
    )
    lines += ("cookie: a=1", "cookie: b=2", "expect: 100-continue", "content-encoding: gzip", "x-request-id: mine")
    async with caller(gateway) as line:
        await line.send(asked("POST", "/e/tiny/x", *lines, body=b"zipped"))
        answer = await line.answer()
    assert (answer.status, answer.headers["x-request-id"]) == (200, "mine")
    [one] = container.asked
    for gone in ("connection", "x-hop", "te", "keep-alive", "expect", "authorization"):
        assert one.one(gone) is None, gone
    assert (one.one("accept"), one.one("cookie")) == ("a/b, c/d", "a=1; b=2")
    assert (one.one("content-encoding"), one.one("x-request-id")) == ("gzip", "mine")
    assert ALICE not in str(one.headers)


@pytest.mark.parametrize(
    ("came", "passes"),
    [
        (("sessionid=s; csrftoken=c",), None),
        (("sessionid=s", "csrftoken=c"), None),
        (("sessionid=s; mine=1; csrftoken=c; theirs=a=b",), "mine=1; theirs=a=b"),
        (("mine=1; sessionid=s",), "mine=1"),
        ((" sessionid = s;mine=1;sessionid=t",), "mine=1"),
        (("sessionid; mine=1",), "mine=1"),
        (("mine=sessionid; Sessionid=1; xcsrftoken=3",), "mine=sessionid; Sessionid=1; xcsrftoken=3"),
    ],
)
async def test_cookies_of_the_console_are_the_consoles_alone(
    tmp_path: Path, container: Container, came: tuple[str, ...], passes: str | None
) -> None:
    private = ("sessionid", "csrftoken")
    async with house(tmp_path, container, open=True, private=private) as gateway, caller(gateway) as line:
        await line.send(asked("GET", "/e/tiny/x", *(f"cookie: {one}" for one in came)))
        assert (await line.answer()).status == 200
    [one] = container.asked
    assert one.one("cookie") == passes


async def test_a_container_sets_no_cookie_in_place_of_the_consoles(tmp_path: Path, container: Container) -> None:
    lines = ("set-cookie: sessionid=mine; Path=/", "set-cookie: a=1; Path=/", "set-cookie: csrftoken =x")
    container.say(plain(*lines, body=b"go"), stays=False)
    private = ("sessionid", "csrftoken")
    async with house(tmp_path, container, open=True, private=private) as gateway, caller(gateway) as line:
        await line.send(asked("GET", "/e/tiny/x"))
        text = (await line.reader.readuntil(b"\r\n\r\ngo")).decode()
    assert "\r\nset-cookie: a=1; Path=/\r\n" in text
    assert "sessionid" not in text
    assert "csrftoken" not in text


async def test_answers_pass_with_their_status_and_headers(gateway: House, container: Container) -> None:
    lines: tuple[str, ...] = (
        "connection: close, x-hop",
        "x-hop: 1",
        "set-cookie: a=1, 2",
        "set-cookie: b=2",
        "vary: x",
        "vary: y",
    )
    lines += ("date: yesterday", "x-request-id: its", "access-control-allow-origin: *", "location: /there")
    container.say(plain(*lines, status="303 See Other", body=b"go"), stays=False)
    async with caller(gateway) as line:
        await line.send(asked("GET", "/e/tiny/x"))
        text = (await line.reader.readuntil(b"\r\n\r\ngo")).decode()
    assert text.startswith("HTTP/1.1 303 ")
    assert "\r\nset-cookie: a=1, 2\r\nset-cookie: b=2\r\nvary: x, y\r\nlocation: /there\r\n" in text
    for gone in ("x-hop", "yesterday", "its", "access-control"):
        assert gone not in text, gone
    [record] = await gateway.settled()
    assert (record.status, record.status_class) == (303, "2xx")


@pytest.mark.parametrize(
    ("status", "lines"), [("204 No Content", ()), ("304 Not Modified", ("etag: a",)), ("500 Oops", ())]
)
async def test_what_it_answers_is_not_made_openais(
    gateway: House, container: Container, status: str, lines: tuple[str, ...]
) -> None:
    body = b"its own words" if status.startswith("5") else b""
    container.say(plain(*lines, status=status, body=body))
    async with caller(gateway) as line:
        for _ in range(2):
            await line.send(asked("GET", "/e/tiny/x"))
            answer = await line.answer(mute=not body)
            assert (answer.status, answer.body) == (int(status[:3]), body)


async def test_the_container_learns_where_it_is(tmp_path: Path, container: Container) -> None:
    liar = (
        "X-Forwarded-Prefix: /evil",
        "X_Forwarded_For: 6.6.6.6",
        "x-forwarded-proto: https",
        "forwarded: for=6",
    )
    async with house(tmp_path / "1", container, open=True) as gateway:
        await once(gateway, asked("GET", "/e/tiny/x", *liar))
        await once(gateway, asked("GET", "/x", *liar, host=(f"host: {HOST}",)))
    async with house(tmp_path / "2", container, open=True, telling=Options(proxies=1)) as gateway:
        lines = ("x-forwarded-for: 6.6.6.6, 9.9.9.9", "x-forwarded-proto: https", "x-forwarded-host: api.example")
        await once(gateway, asked("GET", "/e/tiny/x", *lines, "x-forwarded-prefix: /models/"))
    told = [
        {name.removeprefix("x-forwarded-"): value for name, value in one.headers if "forwarded" in name}
        for one in container.asked
    ]
    assert told == [
        {"proto": "http", "host": "x", "for": "127.0.0.1", "prefix": "/e/tiny"},
        {"proto": "http", "host": HOST, "for": "127.0.0.1"},
        {"proto": "https", "host": "api.example", "for": "9.9.9.9", "prefix": "/models/e/tiny"},
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/../other/x",
        "/a/../../x",
        "/%2e%2e/other",
        "/a/%2E%2e%2Fb",
        "/.",
        "/a\\..\\b",
        "/%5c..",
        "/a/..%5cb",
        "/.%2e",
    ],
)
async def test_no_path_climbs_out_of_its_endpoint(gateway: House, container: Container, path: str) -> None:
    answer = await once(gateway, asked("GET", "/e/tiny" + path))
    assert (answer.status, answer.code) == (400, "invalid_url")
    assert container.asked == []
    await gateway.settled()


@pytest.mark.parametrize("target", ["/e%2ftiny/x", "/%65/tiny/x", "/e/tiny%2Fx/y"])
async def test_a_prefix_that_others_may_read_otherwise_leads_nowhere(
    gateway: House, container: Container, target: str
) -> None:
    assert (await once(gateway, asked("GET", target))).status in (400, 404)
    assert container.asked == []


async def test_dots_that_climb_nowhere_pass(gateway: House, container: Container) -> None:
    for path in ("/a..b/...", "/.well-known/x", "/%252e%252e/x", "/x?p=/../y"):
        assert (await once(gateway, asked("GET", "/e/tiny" + path))).status == 200
        assert container.asked[-1].target == path


async def test_methods_that_nobody_needs_are_refused(gateway: House, container: Container) -> None:
    for method in ("TRACE", "PROPFIND"):
        answer = await once(gateway, asked(method, "/e/tiny/x"))
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert "PATCH" in answer.headers["allow"]
    assert container.asked == []


# ── who may, how much, and when ──────────────────────────────────────────────────────────────────
async def test_a_call_needs_a_key_that_may(gateway: House, container: Container) -> None:
    for headers, status in (
        ({"authorization": ""}, 401), ({"authorization": "Bearer tir_no"}, 401),
        ({"authorization": f"Bearer {CHARLIE}"}, 403),
    ):  # fmt: skip
        answer = await gateway.call.get("/e/tiny/predict", headers=headers)
        assert (answer.status_code, set(answer.json())) == (status, {"error"})
    assert container.asked == []


async def test_limits_hold_and_no_tokens_are_set_aside_for_a_picture(tmp_path: Path, container: Container) -> None:
    admission = Admission(quotas=Quotas(requests_per_minute=2, tokens_per_minute=50))
    body = b'{"answer":1,"usage":{"prompt_tokens":40,"completion_tokens":2}}'
    container.say(plain("content-type: application/json; charset=utf-8", body=body))
    async with house(tmp_path, container, open=True, admission=admission) as gateway:
        first = await gateway.call.post("/e/tiny/predict", content=b"x" * 100_000)
        assert (first.status_code, first.headers["x-ratelimit-limit-requests"]) == (200, "2")
        await gateway.call.post("/e/tiny/predict", content=b"x")
        third = await gateway.call.post("/e/tiny/predict", content=b"x")
        assert (third.status_code, third.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        records = await gateway.settled(3)
        assert [(one.prompt_tokens, one.completion_tokens) for one in records] == [(40, 2), (40, 2), (0, 0)]


async def test_sizes_are_limited_both_ways(tmp_path: Path, container: Container) -> None:
    container.say(plain(body=b"x" * (2**20 + 1)))
    admission = Admission(max_response_bytes=2**20)
    async with house(tmp_path, container, limits=Limits(body_bytes=10), open=True, admission=admission) as gateway:
        assert (await gateway.call.post("/e/tiny/x", content=b"x" * 11)).status_code == 413
        assert container.asked == []
        answer = await once(gateway, asked("POST", "/e/tiny/x", body=b"x" * 10))
        assert not answer.whole or answer.status == 502
        records = await gateway.settled(2)
        assert [one.status for one in records] == [413, 502]


async def test_a_stopped_endpoint_says_so_on_every_path(gateway: House) -> None:
    gateway.route(desired="stopped", instances=())
    answer = await gateway.call.get("/e/tiny/predict")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "endpoint_stopped")


async def test_calls_wait_while_it_wakes(tmp_path: Path, container: Container) -> None:
    async with house(tmp_path, container, open=True) as gateway:
        instances = gateway.app.gateway.table.routes["tiny"].instances
        gateway.route(instances=(), awaited=True, asleep=True, state="idle")
        waiting = asyncio.create_task(gateway.call.put("/e/tiny/x", content=b"x"))
        await until(lambda: gateway.store.woken == [5], "a wake")
        gateway.route(instances=instances, awaited=True, asleep=False, state="active")
        answer = await waiting
        assert (answer.status_code, answer.headers["x-cold-start"]) == (200, "1")


async def test_an_instance_that_takes_no_connection_is_passed_over_and_one_that_dies_is_not_asked_twice(
    tmp_path: Path, container: Container
) -> None:
    async with Container() as gone:
        await gone.stop()
        async with house(tmp_path, gone, container, open=True) as gateway:
            for _ in range(4):
                assert (await gateway.call.post("/e/tiny/x", content=b"x")).status_code == 200
            container.say(stays=False)
            before = len(container.asked)
            answer = await gateway.call.post("/e/tiny/x", content=b"once")
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_lost")
            assert [one.body for one in container.asked[before:]] == [b"once"]


# ── streams ──────────────────────────────────────────────────────────────────────────────────────
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_each_part_passes_when_it_comes_and_nothing_is_put_between(
    tmp_path: Path, container: Container
) -> None:
    more = asyncio.Event()

    async def answer(_: Asked, writer: asyncio.StreamWriter) -> bool:
        for part in (STREAM, chunked(b"data: half", last=b""), chunked(b' of {"usage":{"prompt_tokens":4}}\n\n')):
            writer.write(part)
            await more.wait()
            more.clear()
        return True

    container.answer = answer
    limits = Limits(heartbeat_seconds=0)
    async with house(tmp_path, container, limits=limits, open=True) as gateway, caller(gateway) as line:
        await line.send(asked("GET", "/e/tiny/events"))
        head = await line.head()  # before any of the body
        assert (head.headers["content-type"], head.headers["x-accel-buffering"]) == ("text/event-stream", "no")
        more.set()
        assert await line.chunk() == b"data: half"
        gateway.server._look()  # a heartbeat would be due
        more.set()
        assert await line.chunk() == b' of {"usage":{"prompt_tokens":4}}\n\n'
        assert await line.chunk() == b""
        more.set()


async def test_tokens_of_a_stream_count_where_it_tells_them(gateway: House, container: Container) -> None:
    events = b'data: {"text":"a"}\n\ndata: {"usage":{"prompt_tokens":4,"completion_tokens":9}}\n\n'
    container.say(STREAM, chunked(events))
    assert (await once(gateway, asked("GET", "/e/tiny/events"))).body == events
    [record] = await gateway.settled()
    assert (record.prompt_tokens, record.completion_tokens, record.estimated) == (4, 9, False)
    assert record.ttft_us is not None


async def test_who_leaves_ends_the_work(gateway: House, container: Container) -> None:
    async def hang(_: Asked, writer: asyncio.StreamWriter) -> bool:
        await container.hold.wait()
        return True

    container.answer = hang
    async with caller(gateway) as line:
        await line.send(asked("DELETE", "/e/tiny/x"))
        await until(lambda: container.open == 1, "the call")
        line.hang_up()
        await until(lambda: container.hung_up == 1, "the instance to be hung up on")
    [record] = await gateway.settled()
    assert record.status == 499


async def test_an_answer_that_breaks_off_does_not_look_whole(gateway: House, container: Container) -> None:
    container.say(STREAM, b"5\r\nhe", stays=False)
    answer = await once(gateway, asked("GET", "/e/tiny/x"))
    assert (answer.status, answer.body, answer.whole) == (200, b"he", False)
    [record] = await gateway.settled()
    assert record.status == 502


# ── browsers ─────────────────────────────────────────────────────────────────────────────────────
async def test_a_browser_of_a_named_origin_may_use_every_method(tmp_path: Path, container: Container) -> None:
    mine: dict[str, Any] = {"origin": "https://app.example"}
    asks = {"access-control-request-method": "DELETE", "access-control-request-headers": "authorization, x-mine"}
    admission = Admission(origins=frozenset({b"https://app.example"}))
    async with house(tmp_path, container, open=True, admission=admission) as gateway:
        answer = await gateway.call.options("/e/tiny/x", headers=mine | asks)
        assert answer.status_code == 204
        assert "DELETE" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization, x-mine"
        assert container.asked == []
        evil = {"origin": "https://evil.example", "authorization": ""}
        assert (await gateway.call.options("/e/tiny/x", headers=evil | asks)).status_code == 401
        assert (await gateway.call.options("/e/tiny/x", headers=mine)).status_code == 200  # the container's own
        assert container.asked[-1].method == "OPTIONS"


async def test_a_key_revoked_meanwhile_is_refused_though_the_head_was_read_before(gateway: House) -> None:
    async with caller(gateway) as line:
        for keys, status in (({}, 200), ({digest(ALICE): None}, 401)):
            if keys:
                table = gateway.app.gateway.table
                gateway.store.table = RouteTable(table.routes.values(), {})
                gateway.app.gateway.take_table(gateway.store.table)
            await line.send(asked("GET", "/e/tiny/same"))
            assert (await line.answer()).status == status


def test_an_image_of_ones_own_has_its_own_names_for_models() -> None:
    route = Route(5, "tiny", "local", project_id=1, revision_id=7, open=True, foreign=True)
    theirs = prepare(route, "v1/chat/completions", b'{"model":"theirs","messages":[]}')
    assert isinstance(theirs, Prepared)
    assert theirs.body == b'{"model":"theirs","messages":[]}'
    unnamed = prepare(route, "v1/chat/completions", b'{"messages":[]}')
    assert isinstance(unnamed, Prepared)
    assert b'"model":"tiny"' in unnamed.body
