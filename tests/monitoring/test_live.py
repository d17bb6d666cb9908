"""Sockets: who may listen, what each may ask, and what becomes of them when rights go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.db import connections
from django.test import Client

from accounts.models import Membership, User
from accounts.roles import Role
from endpoints import acts, bell
from endpoints.models import Endpoint
from monitoring import live, presence, tick
from monitoring.outbox import Outbox
from tests import make
from tests.monitoring import measured

application = AuthMiddlewareStack(URLRouter(live.sockets))
pytestmark = pytest.mark.django_db(transaction=True)
Json = dict[str, Any]


def cookie_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def socket(path: str, cookie: str = "") -> WebsocketCommunicator:
    headers = [(b"origin", b"http://localhost"), (b"host", b"localhost")]
    if cookie:
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={cookie}".encode()))
    return WebsocketCommunicator(application, path, headers=headers)


@asynccontextmanager
async def listening(path: str, cookie: str) -> AsyncIterator[WebsocketCommunicator]:
    one = socket(path, cookie)
    connected, _ = await one.connect(timeout=30)
    assert connected
    await one.send_json_to({"type": "ping"})
    assert (await hear(one, "pong"))["type"] == "pong"
    try:
        yield one
    finally:
        await one.disconnect(timeout=60)


async def hear(one: WebsocketCommunicator, kind: str) -> Json:
    """The next message of this kind, passing over beats and ticks."""
    while True:
        message: Json = await one.receive_json_from(timeout=30)
        if message["type"] == kind:
            return message


async def ask(one: WebsocketCommunicator, verb: str, **args: Any) -> Json:
    await one.send_json_to({"type": "action", "verb": verb, "args": args, "id": "a1"})
    return await hear(one, "result")


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run it in a loop of its own, and leave no database connection open in its thread."""

    async def whole() -> None:
        try:
            await test()
        finally:
            await database_sync_to_async(connections.close_all)()
            await get_channel_layer().flush()  # type: ignore[union-attr]

    async_to_sync(whole)()


def loaded(endpoint: Endpoint) -> Endpoint:
    """With its project, because no query may run beside a running loop."""
    return Endpoint.objects.select_related("project").get(pk=endpoint.pk)


def path_of(endpoint: Endpoint) -> str:
    return f"/ws/projects/{endpoint.project.slug}/endpoints/{endpoint.name}/"


@pytest.fixture
def endpoint() -> Endpoint:
    return loaded(make.endpoint(ready=1, max_instances=5))


async def closing_code(path: str, cookie: str) -> int:
    one = socket(path, cookie)
    await one.connect(timeout=30)
    message = await one.receive_output(timeout=30)
    assert message["type"] == "websocket.close"
    return int(message["code"])


def test_nobody_listens_without_logging_in(endpoint: Endpoint) -> None:
    async def scene() -> None:
        assert await closing_code(path_of(endpoint), "") == 4401
        assert await closing_code(path_of(endpoint), "forged") == 4401

    run(scene)


def test_a_stranger_cannot_tell_forbidden_from_missing(endpoint: Endpoint) -> None:
    charlie = cookie_of(make.user("charlie"))

    async def scene() -> None:
        assert await closing_code(path_of(endpoint), charlie) == 4404
        assert await closing_code(f"/ws/projects/{endpoint.project.slug}/", charlie) == 4404
        assert await closing_code("/ws/projects/no-such-project/", charlie) == 4404

    run(scene)


VERBS: list[tuple[str, Json]] = [
    ("scale", {"instances": "3"}),
    ("emergency", {"instances": "3", "minutes": "15"}),
    ("end-emergency", {}),
    ("stop", {}),
    ("start", {}),
    ("restart", {}),
    ("cancel", {}),
    ("delete", {"confirm": "the-one"}),
]


def test_the_table_below_has_every_verb() -> None:
    assert {verb for verb, _ in VERBS} == set(acts.VERBS)


@pytest.mark.parametrize(("verb", "args"), VERBS)
@pytest.mark.parametrize("role", [Role.VIEWER, Role.BILLING])
def test_who_may_only_look_changes_nothing(verb: str, args: Json, role: Role) -> None:
    endpoint = loaded(make.endpoint(name="the-one", ready=1))
    bob = cookie_of(make.member(endpoint.project, "bob", role))

    async def scene() -> None:
        async with listening(path_of(endpoint), bob) as one:
            answer = await ask(one, verb, **args)
        assert answer["ok"] is False
        assert "look but not change" in answer["message"]
        assert answer["id"] == "a1"

    run(scene)
    assert Endpoint.objects.get(pk=endpoint.pk).generation == endpoint.generation


@pytest.mark.parametrize(("verb", "args"), VERBS)
def test_a_developer_can_do_each_verb(verb: str, args: Json) -> None:
    endpoint = loaded(make.endpoint(name="the-one", ready=1, max_instances=5))
    bob = cookie_of(make.member(endpoint.project))

    async def scene() -> None:
        async with listening(path_of(endpoint), bob) as one:
            answer = await ask(one, verb, **args)
        assert answer["ok"] is True, answer

    run(scene)
    after = Endpoint.objects.get(pk=endpoint.pk)
    wished = verb not in ("start", "cancel", "end-emergency")  # it runs already, and nothing is under way
    assert (after.generation > endpoint.generation) is wished


def test_what_the_model_refuses_is_said_with_its_field(endpoint: Endpoint) -> None:
    alice = cookie_of(make.user("alice"))

    async def scene() -> None:
        async with listening(path_of(endpoint), alice) as one:
            answer = await ask(one, "scale", instances=99)
            assert (answer["ok"], answer["field"], answer["code"]) == (False, "instances", "out_of_range")
            assert "between 1 and 5" in answer["message"]
            assert (await ask(one, "scale", instances="many"))["message"].startswith("Say how many")
            assert (await ask(one, "delete", confirm="another"))["field"] == "confirm"
            assert "no action" in (await ask(one, "explode"))["message"]

    run(scene)
    assert Endpoint.objects.get(pk=endpoint.pk).generation == endpoint.generation


def test_a_lists_socket_acts_on_the_endpoint_it_names(endpoint: Endpoint) -> None:
    alice = cookie_of(make.user("alice"))
    other = make.endpoint(make.project("Beta", owner=make.user("charlie")), ready=1)

    async def scene() -> None:
        async with listening(f"/ws/projects/{endpoint.project.slug}/", alice) as one:
            assert (await ask(one, "stop", endpoint=endpoint.name))["ok"] is True
            assert (await ask(one, "stop", endpoint=other.name))["ok"] is False
            assert (await ask(one, "stop"))["ok"] is False

    run(scene)
    assert Endpoint.objects.get(pk=other.pk).desired == "running"


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "nonsense",
        "[1]",
        "{}",
        '{"type": 3}',
        '{"type": "sing"}',
        "[" * 9000,
        '{"type": "action", "args": [1]}',
    ],
)
def test_a_malformed_message_is_explained_and_the_socket_stays_open(endpoint: Endpoint, text: str) -> None:
    alice = cookie_of(make.user("alice"))

    async def scene() -> None:
        async with listening(path_of(endpoint), alice) as one:
            await one.send_to(text_data=text)
            answer = await hear(one, "result")
            assert answer["ok"] is False
            assert len(answer["message"]) > 20
            await one.send_json_to({"type": "ping"})
            await hear(one, "pong")

    run(scene)


def test_too_large_a_message_is_refused_unread(endpoint: Endpoint) -> None:
    alice = cookie_of(make.user("alice"))

    async def scene() -> None:
        async with listening(path_of(endpoint), alice) as one:
            await one.send_to(text_data=json.dumps({"type": "ping", "id": "x" * live.LARGEST_MESSAGE}))
            assert "at most 16,384" in (await hear(one, "result"))["message"]
            await one.send_to(bytes_data=b"\x00\x01")
            assert "binary" in (await hear(one, "result"))["message"]

    run(scene)


def test_a_revoked_member_is_shut_out_within_the_recheck(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live.LiveConsumer, "recheck_seconds", 0.05)
    bob = make.member(endpoint.project)
    cookie = cookie_of(bob)

    async def scene() -> None:
        async with listening(path_of(endpoint), cookie) as one:
            await database_sync_to_async(Membership.objects.filter(user=bob).delete)()
            assert await closed(one) == 4404

    run(scene)


def test_logging_out_closes_the_sockets(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.LiveConsumer, "recheck_seconds", 0.05)
    client = Client()
    client.force_login(make.user("alice"))
    cookie = client.cookies[settings.SESSION_COOKIE_NAME].value

    async def scene() -> None:
        async with listening(path_of(endpoint), cookie) as one:
            await database_sync_to_async(client.logout)()
            assert await closed(one) == 4401

    run(scene)


def test_rights_count_at_the_moment_of_the_action_not_of_the_connect(endpoint: Endpoint) -> None:
    bob = make.member(endpoint.project)
    cookie = cookie_of(bob)

    async def scene() -> None:
        async with listening(path_of(endpoint), cookie) as one:
            await database_sync_to_async(make.member)(endpoint.project, "bob", Role.VIEWER)
            assert (await ask(one, "stop"))["ok"] is False
            await database_sync_to_async(Membership.objects.filter(user=bob).delete)()
            await one.send_json_to({"type": "action", "verb": "stop", "args": {}})
            assert await closed(one) == 4404

    run(scene)
    assert Endpoint.objects.get(pk=endpoint.pk).desired == "running"


async def closed(one: WebsocketCommunicator) -> int:
    """The code with which the server closes, whatever it says before."""
    while True:
        message = await one.receive_output(timeout=30)
        if message["type"] == "websocket.close":
            return int(message["code"])


def test_a_doorbell_reaches_the_page_of_its_endpoint(endpoint: Endpoint) -> None:
    alice = cookie_of(make.user("alice"))

    async def scene() -> None:
        async with listening(path_of(endpoint), alice) as one:
            ring = database_sync_to_async(bell.push)
            await ring(endpoint.project_id, endpoint.pk, {"type": "doorbell", "what": ["status"]})
            assert (await hear(one, "doorbell"))["what"] == ["status"]

    run(scene)


def test_a_page_that_opens_just_after_something_rang_is_told_to_fetch_all_of_it_anew(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "OPENS_WITHIN", 600)  # by Valkey's clock: just after may take a slow test long
    alice = cookie_of(make.user("alice"))
    bell.push(endpoint.project_id, endpoint.pk, {"type": "doorbell", "what": ["status"]})

    async def scene() -> None:
        one = socket(path_of(endpoint), alice)
        await one.connect(timeout=30)
        assert await one.receive_json_from(timeout=30) == {"type": "doorbell", "what": None}
        await one.disconnect(timeout=60)

    run(scene)


def test_an_open_page_counts_as_looked_at_and_hears_beats(endpoint: Endpoint) -> None:
    alice = cookie_of(make.user("alice"))

    async def scene() -> None:
        async with listening(path_of(endpoint), alice) as one:
            await hear(one, "beat")

    run(scene)
    seen = bell.valkey().zscore(presence.KEY, bell.endpoint_group(endpoint.pk))
    assert seen is not None


def test_an_open_page_gets_its_numbers_and_the_points_of_its_charts(endpoint: Endpoint) -> None:
    alice = cookie_of(make.user("alice"))
    at = datetime(2026, 11, 25, 12, 0, 5, tzinfo=UTC)

    async def scene() -> None:
        async with listening(path_of(endpoint), alice) as one:
            await hear(one, "beat")
            presence.mark(bell.valkey(), bell.endpoint_group(endpoint.pk), at=at.timestamp())
            assert await database_sync_to_async(tick.tick)(at=at) >= 1
            first, second = await hear(one, "tick"), await hear(one, "tick")
            assert first["at"] == second["at"] == at.isoformat()
            assert {*first["data"], *second["data"]} >= {"status", "tiles", "instances", "charts"}

    run(scene)


def test_who_reads_slowly_gets_the_newest_numbers_and_the_newest_points() -> None:
    async def scene() -> None:
        box = Outbox()
        for number in range(4):
            box.tick(f"numbers {number}")
            box.tick(f"points {number}", charts=True)
        assert [await box.next(), await box.next()] == ["points 3", "numbers 3"]
        box.tick("numbers 4")
        assert await box.next() == "numbers 4"

    asyncio.run(scene())


def seqs(message: Json) -> list[int | str]:
    return ["gap" if line.get("gap") else line["seq"] for line in message["lines"]]


async def announce(endpoint: Endpoint, name: str, numbers: range) -> None:
    lines = [{"seq": n, "at": "", "stream": "stderr", "text": f"line {n}"} for n in numbers]
    message = {"type": "log", "instance": name, "first": numbers[0], "last": numbers[-1], "lines": lines}
    layer = get_channel_layer()
    await layer.group_send(  # type: ignore[union-attr]
        bell.endpoint_group(endpoint.pk), {"type": "live.message", "message": message}
    )


def test_a_log_resumes_after_the_last_line_the_page_has(endpoint: Endpoint) -> None:
    alice = cookie_of(make.user("alice"))
    instance = endpoint.instances.get()
    measured.lines(instance, 10)

    async def scene() -> None:
        async with listening(path_of(endpoint), alice) as one:
            await one.send_json_to({"type": "follow", "instance": instance.name, "after": 7})
            assert seqs(await hear(one, "log")) == [8, 9, 10]
            await announce(endpoint, instance.name, range(11, 13))
            assert seqs(await hear(one, "log")) == [11, 12]

    run(scene)


def test_lines_whose_announcement_was_lost_are_fetched_from_the_database(endpoint: Endpoint) -> None:
    alice = cookie_of(make.user("alice"))
    instance = endpoint.instances.get()
    measured.lines(instance, 3)

    async def scene() -> None:
        async with listening(path_of(endpoint), alice) as one:
            await one.send_json_to({"type": "follow", "instance": instance.name, "after": 0})
            assert seqs(await hear(one, "log")) == [1, 2, 3]
            await database_sync_to_async(measured.lines)(instance, 5, start=4)
            await announce(endpoint, instance.name, range(7, 9))
            assert seqs(await hear(one, "log")) == [4, 5, 6, 7, 8]

    run(scene)


def test_a_page_that_is_far_behind_gets_the_newest_lines_and_a_gap(endpoint: Endpoint) -> None:
    alice = cookie_of(make.user("alice"))
    instance = endpoint.instances.get()
    measured.lines(instance, 1500)

    async def scene() -> None:
        async with listening(path_of(endpoint), alice) as one:
            await one.send_json_to({"type": "follow", "instance": instance.name, "after": 10})
            got = seqs(await hear(one, "log"))
            assert (got[0], got[1], got[-1], len(got)) == ("gap", 501, 1500, 1001)

    run(scene)


def test_nobody_who_left_a_log_hears_more_of_it(endpoint: Endpoint) -> None:
    alice = cookie_of(make.user("alice"))
    instance = endpoint.instances.get()
    measured.lines(instance, 1)

    async def scene() -> None:
        async with listening(path_of(endpoint), alice) as one:
            await one.send_json_to({"type": "follow", "instance": instance.name, "after": 0})
            await hear(one, "log")
            await one.send_json_to({"type": "unfollow"})
            await announce(endpoint, instance.name, range(2, 3))
            await one.send_json_to({"type": "ping"})
            while (message := await one.receive_json_from(timeout=30))["type"] != "pong":
                assert message["type"] != "log"

    run(scene)


def test_a_billing_member_reads_no_logs_and_nobody_reads_another_endpoints(endpoint: Endpoint) -> None:
    bob = cookie_of(make.member(endpoint.project, "bob", Role.BILLING))
    alice = cookie_of(make.user("alice"))
    instance = endpoint.instances.get()
    other = loaded(make.endpoint(endpoint.project, ready=1))
    measured.lines(instance, 1)

    async def scene() -> None:
        for cookie, path in ((bob, path_of(endpoint)), (alice, path_of(other))):
            async with listening(path, cookie) as one:
                await one.send_json_to({"type": "follow", "instance": instance.name, "after": 0})
                assert (await hear(one, "result"))["ok"] is False

    run(scene)
