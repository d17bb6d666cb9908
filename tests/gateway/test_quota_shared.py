"""One limit, several gateways, a real Valkey: exactly so many pass, whatever happens to whom."""

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from django.conf import settings

from gateway import quota
from gateway.buckets import Ask, Bucket, Buckets, Item
from gateway.errors import Refusal
from gateway.quota import Limiter, Taken
from gateway.routes import Key, Route
from gateway.shared import SharedCount
from tests.gateway.counting import key, limiter, looked_after, route, rush, unique
from tests.gateway.house import until
from tests.wait import until as wait_until
from tir_console.up.folder import Folder
from tir_console.up.valkey import Valkey


@pytest.fixture(autouse=True)
def _time_to_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer to give back what it had in advance than others wait for it."""
    monkeypatch.setattr(quota, "HOLD_MARGIN_SECONDS", 0.3)


def shared(url: str | None = None) -> SharedCount:
    return SharedCount(url or settings.VALKEY_URL, seconds=20)


@asynccontextmanager
async def gateways(count: int = 2, **more: float) -> AsyncIterator[list[Limiter]]:
    these = [limiter(shared(), **more) for _ in range(count)]
    async with looked_after(*these):
        yield these


async def all_rush(
    these: list[Limiter], who: Key, where: Route, tokens: int, then: Callable[[Taken], Awaitable[None]]
) -> int:
    return sum(await asyncio.gather(*(rush(one, who, where, tokens=tokens, then=then) for one in these)))


async def answered(taken: Taken) -> None:
    await asyncio.sleep(0)
    taken.settle(7)


async def test_script_and_memory_count_alike() -> None:
    draw, count, memory = random.Random(5), shared(), Buckets()
    names = [unique("pair") + str(time.time()) for _ in range(3)]
    began = int(time.time())
    seen = {"refused": 0, "given": 0, "held": 0}
    memory.marker = (await count.exchange(Ask("a", "", "marker", 1000, 60))).marker
    for _ in range(400):
        told = [
            Bucket(
                name, (40, 900, draw.choice([-1, 60])), draw.randint(0, 9), draw.choice([0, 50]),
                (draw.randint(0, 9), draw.randint(0, 90), draw.randint(0, 9)),
                [(began - draw.randint(-90, 70), draw.randint(-3, 1), draw.randint(-60, 9))] * draw.randint(0, 2),
            )
            for name in names
        ]  # fmt: skip
        items = [Item(draw.randint(0, 60), draw.choice([(0,), (0, 1), (2,)])) for _ in range(draw.randint(0, 4))]
        ask = Ask(draw.choice("abc"), draw.choice(["", memory.marker]), "other", 60_000, 100, told, items)
        answer = await count.exchange(ask)
        assert answer == memory.exchange(ask, answer.now)
        seen["refused"] += sum(short is not None for short in answer.shorts)
        seen["held"] += sum(short is not None and short.held_ms > 0 for short in answer.shorts)
        seen["given"] += sum(any(state.extra) for state in answer.states)
    assert all(seen.values())
    stranger = await count.exchange(Ask("a", "no such count", "other", 1000, 60, told, items))
    assert (stranger.marker, stranger.states) == (memory.marker, [])
    await count.close()


@pytest.mark.parametrize(
    ("quotas", "tokens", "passes"),
    [
        ({"requests_per_minute": 100}, 0, 100),
        ({"requests_per_minute": 4000}, 0, 4000),
        ({"tokens_per_minute": 7000}, 7, 1000),
        ({"requests_per_minute": 900, "tokens_per_minute": 7 * 800, "concurrent_requests": 100}, 7, 800),
    ],
)
async def test_gateways_together_let_exactly_the_limit_pass(
    quotas: dict[str, int], tokens: int, passes: int
) -> None:
    async with gateways() as these:
        assert await all_rush(these, key(**quotas), route(), tokens, answered) == passes
        assert await all_rush(these, key(), route(**quotas), tokens, answered) == passes


async def test_no_more_run_at_once_than_the_limit_and_all_of_it_can() -> None:
    who, where, running, most = key(concurrent_requests=40), route(), 0, 0
    enough = asyncio.Event()

    async def runs(taken: Taken) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await enough.wait()
        running -= 1
        taken.settle(0)

    async with gateways() as these:
        rushing = asyncio.ensure_future(all_rush(these, who, where, 0, runs))
        first = await asyncio.gather(*(these[0].take(who, where, 0) for _ in range(9)))
        held = [one for one in first if isinstance(one, Taken)]
        await until(lambda: running + len(held) == 40)
        more = await asyncio.gather(*(these[1].take(who, where, 0) for _ in range(20)))
        held += [one for one in more if isinstance(one, Taken)]
        assert running + len(held) == 40
        for one in held:
            one.settle(0)
        enough.set()
        rushing.cancel()
        await asyncio.gather(rushing, return_exceptions=True)
        assert most <= 40


async def test_the_slots_of_a_gateway_that_died_come_back_and_those_of_a_living_one_do_not() -> None:
    who, where = key(concurrent_requests=3), route()
    died, lives, other = (limiter(shared(), lease=0.5) for _ in range(3))
    lost = [await died.take(who, where, 0), await died.take(who, where, 0)]
    async with looked_after(lives, other):
        kept = await lives.take(who, where, 0)
        assert isinstance(kept, Taken)

        async def another() -> Taken | Refusal:
            await lives.look()
            return await other.take(who, where, 0)

        found: list[Taken] = []
        async with asyncio.timeout(60):
            while len(found) < 2:
                one = await another()
                if isinstance(one, Taken):
                    found.append(one)
        assert isinstance(await another(), Refusal)
        for one in (*found, kept):
            one.settle(0)
    for gone in lost:
        assert isinstance(gone, Taken)
        gone.settle(0)
    await died.stop()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[tuple[Valkey, Callable[[], None], Callable[[], None]]]:
    valkey = Valkey(Folder.open(tmp_path))
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        running.append(subprocess.Popen(valkey.program().command, stdout=subprocess.DEVNULL))
        wait_until(valkey.ready)

    def stop() -> None:
        process = running.pop()
        process.send_signal(signal.SIGKILL)
        process.wait()

    start()
    yield valkey, start, stop
    stop()


async def test_a_valkey_that_ends_and_begins_anew_opens_no_limit(
    own_valkey: tuple[Valkey, Callable[[], None], Callable[[], None]],
) -> None:
    valkey, start, stop = own_valkey
    who, where = key(requests_per_minute=20, concurrent_requests=5), route()
    these = [limiter(shared(valkey.url)) for _ in range(2)]
    async with looked_after(*these):
        let_in = [0, 0]
        for number in (0, 0, 0, 1, 1):
            found = await these[number].take(who, where, 0)
            assert isinstance(found, Taken)
            found.settle(0)
            let_in[number] += 1
        await asyncio.to_thread(stop)
        assert [await rush(one, who, where, then=answered) for one in these] == [17, 18]
        assert not any(one.health()["shared"] for one in these)
        await asyncio.to_thread(start)
        for one in these:
            async with asyncio.timeout(60):
                while not one.health()["shared"]:
                    await one.look()
        await until(lambda: not any(one.dirty for one in these))
        again = key(requests_per_minute=10)
        assert await all_rush(these, again, where, 0, answered) == 10
        assert await all_rush(these, who, where, 0, answered) == 0  # told of what passed meanwhile
