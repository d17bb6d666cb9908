"""A gateway with the real queue behind it: a database, engines for instances, and routes made from both."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from django.db import connections

from accounts.models import ApiKey
from endpoints.models import Endpoint
from gateway import facts
from gateway.jobs.door import DatabaseJobs
from gateway.jobs.models import AsyncRequest
from gateway.meter import Meter
from gateway.routes import RouteTable
from gateway.server import Server, assemble
from gateway.totals import Record
from tests import make
from tests.gateway.engine import Engine
from tests.gateway.house import Counted, MemoryStore

T = TypeVar("T")
CHAT = "/e/tiny/v1/async/chat/completions"
STATUS = "/e/tiny/v1/async/status/"
ASK = {"messages": [{"role": "user", "content": "Say something, please."}]}


@dataclass
class World:
    endpoint: Endpoint
    key: ApiKey
    secret: str


def world(**columns: Any) -> World:
    """Alpha's endpoint `tiny` with one instance, and a key that may call it."""
    endpoint = make.endpoint(make.project("Alpha"), name="tiny", ready=1, **columns)
    key, secret = make.key(endpoint.project)
    return World(endpoint, key, secret)


@dataclass
class Door:
    """One running gateway; `call` speaks with the world's key."""

    server: Server
    jobs: DatabaseJobs
    store: MemoryStore
    call: httpx.AsyncClient
    counted: Counted

    @property
    def records(self) -> list[Record]:
        return self.counted.records

    async def submit(self, **more: Any) -> str:
        answer = await self.call.post(CHAT, json={**ASK, **more})
        assert answer.status_code == 202, answer.text
        request_id: str = answer.json()["request_id"]
        return request_id

    async def status(self, request_id: str) -> dict[str, Any]:
        answer = await self.call.get(STATUS + request_id)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def reached(self, request_id: str, *states: str) -> dict[str, Any]:
        """Its status, once it is in one of these states."""
        async with asyncio.timeout(60):
            while True:
                found = await self.status(request_id)
                if found["status"] in states:
                    return found
                self.look()
                await asyncio.sleep(0.02)

    def look(self) -> None:
        assert self.jobs.runner is not None
        self.jobs.runner.wake()

    async def refresh(self) -> None:
        """Have the gateway know what the database says now."""
        self.store.table = await in_database(facts.table)
        self.server.app.gateway.take_table(self.store.table)


@contextlib.asynccontextmanager
async def door(folder: Path, here: World, *engines: Engine) -> AsyncIterator[Door]:
    table = await in_database(lambda: _at_engines(here, engines))
    store, jobs = MemoryStore(table), DatabaseJobs()
    meter = Meter.open(folder)
    counted = Counted(meter)
    server = Server(assemble(meter, store, jobs=jobs))
    await server.start("127.0.0.1", 0)
    async with asyncio.timeout(60):
        while server.app.keeper.routes.last is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    base, headers = f"http://127.0.0.1:{server.port}", {"authorization": f"Bearer {here.secret}"}
    try:
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=60, trust_env=False) as call:
            yield Door(server, jobs, store, call, counted)
    finally:
        if not server.draining:  # the test has stopped it itself
            await server.stop(patience=0)
    assert server.app.gateway.awake.calls == 0, "every call that began has ended"


def _at_engines(here: World, engines: tuple[Engine, ...]) -> RouteTable:
    here.endpoint.instances.all().delete()
    for engine in engines:
        make.instance(here.endpoint, address=f"http://127.0.0.1:{engine.port}")
    return facts.table()


async def in_database(act: Callable[[], T]) -> T:
    """Do it in a thread, and leave no connection behind."""

    def alone() -> T:
        try:
            return act()
        finally:
            connections.close_all()

    return await asyncio.to_thread(alone)


async def only() -> AsyncRequest:
    """The one request there is."""
    return await in_database(AsyncRequest.objects.get)
