"""The database as the gateway sees it, and its counts as the database gets them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import jwt
import orjson
import pytest
import redis
from django.conf import settings
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import accounts.tokens
from accounts.models import ApiKey, Membership, ServiceAccount, SigningKey, User
from accounts.roles import Role
from endpoints.models import Endpoint, Event, Instance, Revision
from gateway import facts, store, written
from gateway.auth import authenticate
from gateway.contract import Away
from gateway.routes import Key, Quotas, RouteTable, digest
from gateway.store import DatabaseStore
from gateway.totals import Record, Rows, Totals
from monitoring import bodies
from monitoring.histogram import Histogram
from monitoring.models import KeyTraffic, Traffic
from tests import make

T = TypeVar("T")

AT = datetime(2026, 3, 1, 9, 7, 30, tzinfo=UTC).timestamp()


@pytest.mark.django_db
class TestFacts:
    def test_an_active_endpoint_is_routed_to_its_ready_instances(self) -> None:
        endpoint = make.endpoint(ready=2, name="tiny")
        make.instance(endpoint, state="draining")
        make.instance(endpoint, state="stopped", ended_at=timezone.now())
        route = facts.table().routes["tiny"]
        assert len(route.ready) == 2
        assert len(route.instances) == 3
        assert {one.revision_id for one in route.ready} == {endpoint.serving_revision_id}
        assert route.project_id == endpoint.project_id
        assert (route.region, route.desired, route.state) == ("local", "running", "active")
        assert route.defaults == {"temperature": 1.0, "top_k": 50, "top_p": 0.9}
        assert route.context_length == 2048

    @pytest.mark.parametrize(
        ("said", "any_path"),
        [
            ({"framework": "llama.cpp"}, False),
            ({"framework": "vllm"}, False),
            ({"framework": "onnx"}, True),
            ({"framework": "python"}, True),
            ({"framework": "custom", "method": "custom"}, True),
        ],
    )
    def test_any_path_passes_where_what_runs_has_paths_of_its_own(
        self, said: dict[str, str], any_path: bool
    ) -> None:
        endpoint = make.endpoint(ready=1, name="tiny")
        [revision] = endpoint.revisions.all()
        Revision.objects.filter(pk=revision.pk).update(spec=revision.spec | said)
        assert facts.table().routes["tiny"].open is any_path

    def test_a_call_may_name_the_endpoint_or_the_model_as_it_is_called_where_it_comes_from(self) -> None:
        endpoint = make.endpoint(ready=1, name="tiny")
        assert facts.table().routes["tiny"].models == ("tiny", "smollm2-135m-instruct")
        source = {"kind": "huggingface", "model": "", "model_id": "org/Tiny-1B"}
        [revision] = endpoint.revisions.all()
        Revision.objects.filter(pk=revision.pk).update(spec=revision.spec | {"source": source})
        assert facts.table().routes["tiny"].models == ("tiny", "org/Tiny-1B")

    def test_nothing_is_filled_into_calls_of_an_image_of_ones_own(self) -> None:
        endpoint = make.endpoint(ready=1, name="tiny")
        [revision] = endpoint.revisions.all()
        Revision.objects.filter(pk=revision.pk).update(spec=revision.spec | {"method": "custom"})
        route = facts.table().routes["tiny"]
        assert (route.defaults, route.context_length) == ({}, 0)

    def test_a_deployment_under_way_says_what_it_does(self) -> None:
        endpoint = make.endpoint(name="tiny")
        endpoint.deployments.get().phases.filter(kind="loading").update(state="running")
        route = facts.table().routes["tiny"]
        assert route.phase == "Model loading"
        assert route.revision_id == endpoint.revisions.get().pk

    def test_a_stopped_one_says_by_whom(self) -> None:
        endpoint = make.endpoint(ready=1, name="tiny")
        endpoint.stop(by=make.user("alice"))
        route = facts.table().routes["tiny"]
        assert route.desired == "stopped"
        assert route.state_by == "alice"

    @pytest.mark.parametrize(
        ("columns", "awaited"),
        [
            ({"status": "degraded"}, True),
            ({"status": "degraded", "notice": "needs 2 vCPU, free is 0"}, False),
            ({"status": "failed"}, False),
            ({"status": "deploying", "serving_revision": None}, False),
            ({"status": "deploying"}, True),
            ({"status": "stopped", "desired": "stopped"}, False),
        ],
    )
    def test_callers_wait_for_what_comes_by_itself(self, columns: dict[str, Any], awaited: bool) -> None:
        endpoint = make.endpoint(ready=1)
        endpoint.instances.update(ended_at=timezone.now(), state="stopped")
        Endpoint.objects.update(**columns)
        route = facts.table().routes[endpoint.name]
        assert (route.awaited, route.asleep) == (awaited, False)

    def test_callers_wait_for_room_while_an_instance_of_its_own_leaves(self) -> None:
        endpoint = make.endpoint(ready=1)
        endpoint.instances.update(state="draining")
        Endpoint.objects.update(status="degraded", notice="needs 2 vCPU, free is 0")
        route = facts.table().routes[endpoint.name]
        assert (route.awaited, route.phase) == (True, "needs 2 vCPU, free is 0")

    def test_a_deleted_one_is_gone(self) -> None:
        make.endpoint(ready=1, deleted_at=timezone.now())
        assert len(facts.table()) == 0

    def test_a_key_is_found_by_its_secret_and_a_revoked_one_is_not(self) -> None:
        project = make.project()
        key, secret = make.key(project)
        gone, old = make.key(project)
        gone.revoke(at=timezone.now())
        table = facts.table()
        found = table.key(secret)
        assert found is not None
        assert (found.id, found.project_id, found.scopes) == (key.pk, project.pk, frozenset({"inference"}))
        assert table.key(old) is None

    def test_a_key_is_known_with_what_it_may_call_and_how_much(self) -> None:
        endpoint = make.endpoint()
        limits = {"requests_per_minute": 60, "concurrent_requests": 2}
        narrow, secret = make.key(endpoint.project, endpoint_ids=[endpoint.pk], limits=limits)
        _, plain = make.key(endpoint.project)
        known = facts.table()
        found, free = known.keys[digest(secret)], known.keys[digest(plain)]
        assert (found.endpoints, found.quotas) == (frozenset({endpoint.pk}), Quotas(60, None, 2))
        assert found.holder == f"key:{narrow.pk}"
        assert (free.endpoints, free.quotas) == (None, None)

    def test_credentials_of_an_account_share_its_allowance_and_fall_with_it(self) -> None:
        endpoint = make.endpoint()
        account, _, first = ServiceAccount.open(
            endpoint.project, name="shop", by=None, endpoint_ids=[endpoint.pk], limits={"tokens_per_minute": 9}
        )
        _, second = account.rotate(at=timezone.now(), old_until=None, by=None)
        known = facts.table()
        both = [known.keys[digest(secret)] for secret in (first, second)]
        assert {one.holder for one in both} == {f"account:{account.pk}"}
        assert {one.quotas for one in both} == {Quotas(None, 9)}
        assert {one.endpoints for one in both} == {frozenset({endpoint.pk})}
        account.disable(at=timezone.now(), by=None)
        assert not facts.table().keys
        account.enable(by=None)
        assert len(facts.table().keys) == 2
        account.discard(at=timezone.now(), by=None)
        assert not facts.table().keys

    def test_a_token_of_the_console_is_believed_and_falls_with_its_key(self) -> None:
        endpoint = make.endpoint(name="tiny")
        key, _ = make.key(endpoint.project)
        now = timezone.now()
        header = f"Bearer {accounts.tokens.for_key(key, at=now, endpoints=['tiny']).token}"
        found = authenticate(facts.table(), header, at=now)
        assert isinstance(found, Key)
        assert (found.id, found.endpoints) == (key.pk, frozenset({endpoint.pk}))
        key.revoke(at=now)
        assert not isinstance(authenticate(facts.table(), header, at=now), Key)

    @pytest.mark.parametrize(
        "change",
        [
            lambda person: Membership.objects.filter(user=person).delete(),
            lambda person: Membership.objects.filter(user=person).update(role=Role.VIEWER),
            lambda person: User.objects.filter(pk=person.pk).update(is_active=False),
            lambda person: SigningKey.rotate(at=timezone.now(), now=True),
        ],
        ids=["removed", "may only look", "disabled", "signing key forgotten"],
    )
    def test_a_members_token_falls_with_what_it_stands_on(self, change: Callable[[User], Any]) -> None:
        endpoint = make.endpoint()
        bob, now = make.member(endpoint.project), timezone.now()
        issued = accounts.tokens.for_person(bob, endpoint.project, at=now, endpoint_ids=[endpoint.pk])
        header = f"Bearer {issued.token}"
        found, before = authenticate(facts.table(), header, at=now), facts.stamp()
        assert isinstance(found, Key)
        assert found.id is None
        change(bob)
        assert facts.stamp() != before
        assert not isinstance(authenticate(facts.table(), header, at=now), Key)

    def test_a_retired_signer_is_believed_until_its_last_token_has_ended(self) -> None:
        project = make.project()
        key, _ = make.key(project)
        at = timezone.now() - timedelta(minutes=65)
        token = accounts.tokens.for_key(key, at=at, lifetime=timedelta(hours=1)).token
        kid = jwt.get_unverified_header(token)["kid"]
        SigningKey.rotate(at=at)
        assert kid in facts.table().trust.signers
        SigningKey.objects.filter(kid=kid).update(retired_at=timezone.now() - timedelta(minutes=61))
        assert kid not in facts.table().trust.signers

    def test_the_number_of_queries_does_not_grow_with_endpoints(self) -> None:
        make.endpoint(ready=1)
        with CaptureQueriesContext(connection) as few:
            facts.table()
        for _ in range(5):
            make.endpoint(ready=2)
        with CaptureQueriesContext(connection) as many:
            facts.table()
        assert len(few) == len(many) == 7

    @pytest.mark.parametrize(
        "change",
        [
            lambda endpoint, key: key.revoke(at=timezone.now()),
            lambda endpoint, key: make.key(endpoint.project),
            lambda endpoint, key: ApiKey.objects.update(scopes=["manage"]),
            lambda endpoint, key: ApiKey.objects.update(expires_at=timezone.now()),
            lambda endpoint, key: ApiKey.objects.update(endpoint_ids=[endpoint.pk]),
            lambda endpoint, key: ApiKey.objects.update(requests_per_minute=5),
            lambda endpoint, key: ApiKey.objects.update(tokens_per_minute=5),
            lambda endpoint, key: ApiKey.objects.update(concurrent_requests=5),
            lambda endpoint, key: ServiceAccount.objects.update(disabled_at=timezone.now()),
            lambda endpoint, key: ServiceAccount.objects.update(endpoint_ids=[endpoint.pk]),
            lambda endpoint, key: ServiceAccount.objects.update(tokens_per_minute=5),
            lambda endpoint, key: SigningKey.make(valid_from=timezone.now()),
            lambda endpoint, key: make.member(endpoint.project, "carol"),
            lambda endpoint, key: endpoint.stop(by=None),
            lambda endpoint, key: endpoint.instances.update(state="draining"),
            lambda endpoint, key: endpoint.instances.update(address="http://127.0.0.1:9"),
            lambda endpoint, key: make.instance(endpoint),
            lambda endpoint, key: make.endpoint(),
            lambda endpoint, key: Endpoint.objects.update(status="degraded"),
            lambda endpoint, key: Endpoint.objects.update(wanted=0),
            lambda endpoint, key: Endpoint.objects.update(notice="No room."),
            lambda endpoint, key: Endpoint.objects.update(deleted_at=timezone.now()),
            lambda endpoint, key: endpoint.restart(by=None),
            lambda endpoint, key: bodies.keep(endpoint, one_in=5, patterns=[], by=make.user("alice")),
        ],
    )
    def test_whatever_changes_the_table_changes_its_stamp(self, change: Callable[[Any, Any], Any]) -> None:
        endpoint = make.endpoint(ready=1)
        key, _ = make.key(endpoint.project)
        ServiceAccount.open(endpoint.project, name="shop", by=None)
        before = facts.stamp()
        assert facts.stamp() == before
        change(endpoint, key)
        assert facts.stamp() != before


def rows(endpoint: Endpoint, key: ApiKey | None, *latencies: int, source: str = "one", **more: Any) -> Rows:
    totals, revision_id = Totals(source), endpoint.serving_revision_id or 0
    for latency in latencies:
        totals.add(Record(AT, endpoint.pk, revision_id, key.pk if key else None, 200, latency, **more))
    return totals.take_dirty()


@pytest.mark.django_db(transaction=True)
class TestWritten:
    def test_a_row_holds_what_was_counted(self) -> None:
        endpoint = make.endpoint(ready=1)
        key, _ = make.key(endpoint.project)
        batch = [rows(endpoint, key, 5_000, 9_000, ttft_us=2_000, prompt_tokens=3, estimated=True, bytes_out=8)]
        written.write(batch, {key.pk: AT})
        row = Traffic.objects.get()
        assert (row.requests, row.succeeded, row.minute.second, row.minute.minute) == (2, 2, 0, 7)
        assert (row.prompt_tokens, row.estimated_tokens, row.response_bytes) == (6, 6, 16)
        latency = Histogram.stored(
            row.latency_first,
            row.latency_buckets,
            count=row.requests,
            sum_us=row.latency_sum_us,
            max_us=row.latency_max_us,
        )
        assert latency == next(iter(batch[0].minutes.values())).latency
        assert sum(row.ttft_buckets) == 2
        used = KeyTraffic.objects.get()
        assert (used.key_id, used.status_class, used.requests, used.quarter.minute) == (key.pk, "2xx", 2, 0)
        key.refresh_from_db()
        assert key.last_used_at is not None
        assert key.last_used_at.timestamp() == AT

    def test_writing_again_replaces_and_never_adds(self) -> None:
        endpoint = make.endpoint(ready=1)
        key, _ = make.key(endpoint.project)
        for _ in range(2):
            written.write([rows(endpoint, key, 5_000)], {})
        written.write([rows(endpoint, key, 5_000, 5_000, 5_000)], {})
        assert Traffic.objects.get().requests == 3
        assert KeyTraffic.objects.get().requests == 3

    def test_what_a_person_called_without_a_key_is_counted_once_too(self) -> None:
        endpoint = make.endpoint(ready=1)
        gone, _ = make.key(endpoint.project)
        for _ in range(2):
            written.write([rows(endpoint, None, 5_000, 6_000)], {})
        lost = rows(endpoint, gone, 5_000, source="gone")
        gone.delete()
        written.write([lost, rows(endpoint, None, 5_000, 6_000)], {})
        row = KeyTraffic.objects.get()
        assert (row.key_id, row.requests, row.source) == (None, 2, "one")

    def test_each_source_replaces_only_its_own(self) -> None:
        endpoint = make.endpoint(ready=1)
        key, _ = make.key(endpoint.project)
        written.write([rows(endpoint, key, 5_000), rows(endpoint, key, 7_000, source="two")], {})
        written.write([rows(endpoint, key, 5_000, 6_000)], {})
        assert sorted(Traffic.objects.values_list("source", "requests")) == [("one", 2), ("two", 1)]

    def test_rows_of_what_was_deleted_do_not_hold_back_the_others(self) -> None:
        endpoint = make.endpoint(ready=1)
        key, _ = make.key(endpoint.project)
        gone, _ = make.key(endpoint.project)
        lost = rows(endpoint, gone, 5_000, source="gone")
        gone.delete()
        written.write([lost, rows(endpoint, key, 5_000)], {})
        assert [row.source for row in KeyTraffic.objects.all()] == ["one"]
        assert Traffic.objects.count() == 2


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's Valkey is not away."""
    monkeypatch.setattr(store, "VALKEY_SECONDS", 60.0)


@contextlib.asynccontextmanager
async def open_store() -> AsyncIterator[DatabaseStore]:
    store = DatabaseStore()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def people(transactional_db: None) -> tuple[Endpoint, ApiKey, str]:
    endpoint = make.endpoint(ready=1, name="tiny")
    key, secret = make.key(endpoint.project)
    return endpoint, key, secret


class TestStore:
    async def test_it_loads_once_and_then_only_what_changed(self, people: tuple[Endpoint, ApiKey, str]) -> None:
        async with open_store() as store:
            table = await store.load()
            assert isinstance(table, RouteTable)
            assert table.key(people[2]) is not None
            assert await store.load() is None
            await asyncio.to_thread(in_thread, lambda: people[1].revoke(at=timezone.now()))
            table = await store.load()
            assert table is not None
            assert table.key(people[2]) is None

    async def test_a_flush_reaches_the_database(self, people: tuple[Endpoint, ApiKey, str]) -> None:
        async with open_store() as store:
            await store.flush([rows(people[0], people[1], 5_000)], {})
        assert await asyncio.to_thread(in_thread, Traffic.objects.count) == 1

    async def test_a_database_that_is_away_is_said_to_be_and_nothing_breaks(
        self, people: tuple[Endpoint, ApiKey, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away() -> None:
            raise OperationalError("connection refused")

        async with open_store() as store:
            with monkeypatch.context() as patched:
                patched.setattr(facts, "stamp", away)
                with pytest.raises(Away, match="connection refused"):
                    await store.load()
            assert await store.load() is not None

    async def test_a_call_wakes_what_sleeps_and_only_that(self, people: tuple[Endpoint, ApiKey, str]) -> None:
        def sleep() -> None:
            Endpoint.objects.update(wanted=0, min_instances=0, status="idle")
            people[0].instances.update(ended_at=timezone.now(), state="stopped")

        await asyncio.to_thread(in_thread, sleep)
        async with open_store() as store:
            table = await store.load()
            assert table is not None
            assert (table.routes["tiny"].awaited, table.routes["tiny"].asleep) == (True, True)
            await store.wake(people[0].pk)
            await store.wake(people[0].pk)
            await store.wake(people[0].pk + 1)
            table = await store.load()
            assert table is not None
            assert (table.routes["tiny"].awaited, table.routes["tiny"].asleep) == (True, False)
        assert await asyncio.to_thread(in_thread, Event.objects.filter(kind="endpoint.woken").count) == 1

    async def test_a_ring_is_heard_at_once(self, people: tuple[Endpoint, ApiKey, str]) -> None:
        async with open_store() as store, asyncio.timeout(60):
            rings = store.listen()
            await anext(rings)  # listening begins
            heard = asyncio.ensure_future(anext(rings))
            await asyncio.to_thread(in_thread, lambda: people[0].stop(by=None))
            await heard
            table = await store.load()
            assert table is not None
            assert table.routes["tiny"].desired == "stopped"
            await rings.aclose()  # type: ignore[attr-defined]

    async def test_a_tick_is_seen_for_five_seconds(self, people: tuple[Endpoint, ApiKey, str]) -> None:
        async with open_store() as store:
            await store.publish("abc", orjson.dumps({"at": 1}))
            valkey = redis.Redis.from_url(settings.VALKEY_URL)
            assert valkey.get("tir:gateway:abc") == b'{"at":1}'
            assert 0 < valkey.ttl("tir:gateway:abc") <= 5
            valkey.close()

    async def test_valkey_away_is_away(self, people: tuple[Endpoint, ApiKey, str], settings: Any) -> None:
        settings.VALKEY_URL = "redis://127.0.0.1:9/0"
        async with open_store() as store:
            with pytest.raises(Away, match="Valkey"):
                await store.publish("abc", b"{}")
            with pytest.raises(Away, match="Valkey"):
                await anext(store.listen())


def in_thread(act: Callable[[], T]) -> T:
    try:
        return act()
    finally:
        connection.close()


@pytest.mark.django_db
def test_the_stamp_of_many_is_quick() -> None:
    endpoint = make.endpoint(ready=1)
    first = endpoint.instances.get()
    Instance.objects.bulk_create(
        Instance(
            endpoint=endpoint,
            revision=first.revision,
            name=f"many-{n}",
            state="ready",
            address=first.address,
            started_at=timezone.now(),
        )
        for n in range(5_000)
    )

    def took() -> float:
        began = time.monotonic()
        facts.stamp()
        return time.monotonic() - began

    assert any(took() < 0.5 for _ in range(20))  # the machine may look away, the database may not read them all
