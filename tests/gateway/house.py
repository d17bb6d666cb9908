"""A gateway on a free port of this process, with a memory for a database and engines for instances."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson

from gateway.app import App
from gateway.client import Limits
from gateway.contract import Away, Counts
from gateway.ended import Ended
from gateway.meter import Meter
from gateway.passport import Passport
from gateway.routes import Key, Route, RouteTable, Upstream, digest
from gateway.server import Server, assemble
from gateway.telemetry import Options
from gateway.tls import Certificate
from gateway.totals import Record, Rows, Total
from tests.gateway.counting import Memory
from tests.gateway.engine import Engine

ALICE, CHARLIE, NARROW = "tir_alice000_secret", "tir_charlie0_secret", "tir_narrow00_secret"
KEYS = {
    digest(ALICE): Key(1, project_id=1),
    digest(CHARLIE): Key(2, project_id=2),
    digest(NARROW): Key(3, project_id=1, scopes=frozenset({"manage"})),
}
PATIENCE = 60.0  # with which a busy machine is waited for
ASK = {"messages": [{"role": "user", "content": "Say something, please."}]}


@dataclass
class MemoryStore:
    """A store whose database is two dicts; `away` makes every call fail as a lost connection does."""

    table: RouteTable | None = None
    away: bool = False
    minutes: dict[tuple[Any, ...], Total] = field(default_factory=dict)
    quarters: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    used: dict[int, float] = field(default_factory=dict)
    passports: dict[UUID, Passport] = field(default_factory=dict)
    ticks: list[dict[str, Any]] = field(default_factory=list)
    woken: list[int] = field(default_factory=list)
    flushes: int = 0
    counts: Counts = field(default_factory=Memory)
    rings: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    async def load(self) -> RouteTable | None:
        self._reach()
        return self.table

    async def flush(self, batch: Sequence[Rows], used: Mapping[int, float]) -> None:
        self._reach()
        self.flushes += 1
        for rows in batch:
            self.minutes |= {(rows.source, *key): total for key, total in rows.minutes.items()}
            self.quarters |= {(rows.source, *key): total for key, total in rows.quarters.items()}
        self.used |= used

    async def flush_passports(self, batch: Sequence[Passport]) -> None:
        self._reach()
        self.passports |= {passport.id: passport for passport in batch}

    async def wake(self, endpoint_id: int) -> None:
        self._reach()
        self.woken.append(endpoint_id)

    async def publish(self, source: str, tick: bytes) -> None:
        self._reach()
        self.ticks.append(orjson.loads(tick))

    async def listen(self) -> AsyncIterator[None]:
        self._reach()
        while True:
            await self.rings.get()
            yield

    async def close(self) -> None:
        pass

    def _reach(self) -> None:
        if self.away:
            raise Away("the database is away")


@dataclass
class House:
    """What a test speaks to: `call` is a client of the gateway, `records` what was counted."""

    app: App
    server: Server
    store: MemoryStore
    call: httpx.AsyncClient
    url: str
    port: int
    counted: "Counted"

    @property
    def records(self) -> list[Record]:
        return self.counted.records

    async def ask(self, path: str = "/e/tiny/v1/chat/completions", **more: Any) -> httpx.Response:
        return await self.call.post(path, json={**ASK, **more})

    def route(self, **changes: Any) -> None:
        """Change the one route's facts, as a refresh would."""
        table = self.app.gateway.table
        self.store.table = RouteTable([replace(table.routes["tiny"], **changes)], KEYS)
        self.app.gateway.take_table(self.store.table)

    async def settled(self, count: int = 1) -> list[Record]:
        """The records once there are `count` of them."""
        await until(lambda: len(self.records) >= count, f"{count} records, there are {self.records}")
        return self.records


def route_to(*engines: Engine, **facts: Any) -> Route:
    instances = tuple(
        Upstream(f"tiny-{n}", "127.0.0.1", engine.port, revision_id=7) for n, engine in enumerate(engines)
    )
    plain = Route(5, "tiny", "local", project_id=1, revision_id=7, instances=instances)
    return replace(plain, **facts)


@contextlib.asynccontextmanager
async def house(
    folder: Path,
    *engines: Engine,
    limits: Limits | None = None,
    telling: Options | None = None,
    certificate: Certificate | None = None,
    private: Sequence[str] = (),
    **facts: Any,
) -> AsyncIterator[House]:
    """A running gateway whose endpoint `tiny` has these engines."""
    store = MemoryStore(RouteTable([route_to(*engines, **facts)], KEYS))
    meter = Meter.open(folder)
    app = assemble(meter, store, limits, telling=telling, private=private)
    app.gateway.pool.idle_seconds = app.gateway.pool.connect_seconds = PATIENCE
    counted = Counted(meter)
    server = Server(app, certificate)
    await server.start("127.0.0.1", 0)
    await until(lambda: app.keeper.routes.last is not None, "the gateway to start")
    port = server.port
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {ALICE}"}, timeout=PATIENCE, trust_env=False
        ) as call:
            yield House(app, server, store, call, url, port, counted)
    finally:
        if not server.draining:  # the test has stopped it itself
            await server.stop(patience=1)
    assert app.gateway.awake.calls == 0, "every call that began has ended"


class Counted:
    """Every record that a meter takes from here on."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._records: list[Record] = []
        meter.listeners.append(self._take)

    @property
    def records(self) -> list[Record]:
        self._meter.fold()
        return self._records

    def _take(self, batch: Sequence[Ended]) -> None:
        self._records += [one.record for one in batch]


async def until(look: Any, what: str = "", *, seconds: float = PATIENCE) -> None:
    """Let the loop turn until `look()` holds; AssertionError with `what` after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not look():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None
