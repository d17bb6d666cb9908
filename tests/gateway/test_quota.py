"""What a limit lets pass, what it says to the rest, and what gives it back."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.buckets import REQUESTS, SLOTS, TOKENS, Ask, Bucket, Buckets, Item
from gateway.contract import Limiter as Promised
from gateway.errors import Refusal
from gateway.quota import Taken
from gateway.routes import Admission, Quotas, Route
from tests.gateway.counting import NOON, Memory, headers, key, limiter, looked_after, route, rush
from tests.gateway.house import until


async def nothing(taken: Taken) -> None:
    taken.settle(0)


# ── the window ───────────────────────────────────────────────────────────────────────────────────
@given(st.lists(st.integers(0, 400), max_size=150))
@settings(deadline=None)
def test_no_sixty_seconds_see_more_than_the_limit_and_a_minute_later_there_is_room(gaps: list[int]) -> None:
    buckets, now = Buckets(), NOON
    let_in: list[int] = []
    for gap in gaps:
        now += gap * 10
        ask = Ask("a", "", "m", 1000, 0, [Bucket("k", (5, -1, -1))], [Item(0, (0,))])
        short = buckets.exchange(ask, now).shorts[0]
        recent = [at for at in let_in if now - at < 60_000]
        if short is None:
            assert len(recent) < 5
            let_in.append(now)
        else:
            assert len([at for at in let_in if now - at < 61_000]) == 5
            assert 0 < short.wait_ms <= 61_000
            assert len([at for at in let_in if now + short.wait_ms - at <= 60_000]) < 5


def test_a_clock_that_is_set_back_shuts_no_limit_for_as_long() -> None:
    buckets = Buckets()

    def took(gateway: str, now: int) -> bool:
        told = [Bucket("k", (1, -1, 1))]
        return buckets.exchange(Ask(gateway, "", "m", 15_000, 0, told, [Item(0, (0,))]), now).shorts[0] is None

    assert took("died", NOON)
    assert not took("lives", NOON)
    assert not took("lives", NOON - 20_000), "a little back, it counts on"
    earlier = NOON - 3_600_000
    assert took("lives", earlier), "neither its request nor its slot holds for the hour"
    assert not took("lives", earlier), "what was let in since counts"
    buckets.sweep(earlier)
    buckets.sweep(earlier + 130_000)
    assert not buckets.counts, "nothing is kept until then"


async def test_a_burst_comes_back_as_a_whole() -> None:
    memory = Memory()
    one, who, where = limiter(memory), key(requests_per_minute=3), route()
    async with looked_after(one):
        assert await rush(one, who, where, then=nothing) == 3
        memory.now += 61_000
        one.shares.clear()  # and with them what this gateway remembers of the refusal
        assert await rush(one, who, where, then=nothing) == 3


# ── what callers are told ────────────────────────────────────────────────────────────────────────
async def test_a_caller_is_told_what_is_left_of_the_tightest_limit() -> None:
    one, who = limiter(Memory()), key(requests_per_minute=10, tokens_per_minute=1000)
    async with looked_after(one):
        first = await one.take(who, route(requests_per_minute=2), 30)
        assert headers(first) == {
            "x-ratelimit-limit-requests": "2", "x-ratelimit-remaining-requests": "1",
            "x-ratelimit-reset-requests": "1m0s",
            "x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "970",
            "x-ratelimit-reset-tokens": "1m0s",
        }  # fmt: skip
        assert isinstance(first, Taken)
        first.settle(30)


@pytest.mark.parametrize(
    ("quotas", "kind", "said"),
    [
        ({"requests_per_minute": 1}, "requests", "may make 1 request a minute; 1 were made"),
        ({"tokens_per_minute": 50}, "tokens", "may use 50 tokens a minute; 30 are used or reserved"),
        ({"concurrent_requests": 1}, "concurrent_requests", "may have 1 request running at once; 1 run now"),
    ],
)
@pytest.mark.parametrize("whose", ["This API key", "The endpoint tiny"])
async def test_a_refusal_says_which_limit_what_is_used_and_when_there_is_room(
    quotas: dict[str, int], kind: str, said: str, whose: str
) -> None:
    mine, theirs = (quotas, {}) if whose == "This API key" else ({}, quotas)
    one, who, where = limiter(Memory()), key(**mine), route(**theirs)
    async with looked_after(one):
        taken = await one.take(who, where, 30)
        refused = await one.take(who, where, 30)
        assert isinstance(taken, Taken)
        assert isinstance(refused, Refusal)
        assert refused.status == 429
        error = orjson.loads(refused.body())["error"]
        assert (error["code"], error["type"], error["param"]) == ("rate_limit_exceeded", kind, None)
        assert error["message"].startswith(f"{whose} {said}")
        told = headers(refused)
        if kind == "concurrent_requests":
            assert told == {"retry-after": "1"}
        else:
            assert told[f"x-ratelimit-limit-{kind}"] == str(next(iter(quotas.values())))
            assert 59 <= int(told["retry-after"]) <= 61
            assert told[f"x-ratelimit-reset-{kind}"] in ("1m0s", "1m1s")
            assert f"room again in {told['retry-after']} s" in error["message"]
        taken.settle(30)


async def test_a_request_that_never_fits_is_not_told_to_wait() -> None:
    one = limiter(Memory())
    refused = one.take_now(key(tokens_per_minute=100), route(), 101)
    assert isinstance(refused, Refusal)
    assert "retry-after" not in headers(refused)
    assert "Lower max_tokens" in refused.message


# ── nothing is taken for nothing, and nothing stays taken ────────────────────────────────────────
async def test_what_is_refused_by_one_limit_consumes_nothing_of_another() -> None:
    memory = Memory()
    one, who, full = (
        limiter(memory),
        key(requests_per_minute=5, tokens_per_minute=50),
        route(concurrent_requests=1),
    )
    async with looked_after(one):
        running = await one.take(who, full, 10)
        assert isinstance(running, Taken)
        assert await rush(one, who, full, tokens=10, then=nothing) == 0
        # On a slow machine it has some in advance, which it gives back, here and below.
        await until(lambda: [memory.used(who.holder, what) for what in (REQUESTS, TOKENS)] == [1, 10])
        running.settle(10)
        assert await rush(one, who, route(), tokens=10, callers=2, then=using(10)) == 4


def using(tokens: int) -> Callable[[Taken], Awaitable[None]]:
    async def settle(taken: Taken) -> None:
        taken.settle(tokens)

    return settle


async def test_tokens_that_were_not_used_come_back_and_those_used_beyond_are_counted() -> None:
    memory = Memory()
    one, who, where = limiter(memory), key(tokens_per_minute=1000), route()
    async with looked_after(one):
        first = await one.take(who, where, 900)
        assert isinstance(await one.take(who, where, 200), Refusal)
        assert isinstance(first, Taken)
        first.settle(100)
        second = await one.take(who, where, 800)
        assert isinstance(second, Taken)
        await until(lambda: not one.holding)
        second.settle(1500)
        refused = await one.take(who, where, 1)
        assert isinstance(refused, Refusal)
        assert "1,600 are used" in refused.message
        second.settle(0)  # the first call counts
        assert isinstance(await one.take(who, where, 1), Refusal)


async def test_a_request_that_is_let_go_of_unsettled_gives_its_slot_back(caplog: pytest.LogCaptureFixture) -> None:
    one, who, where = limiter(Memory()), key(concurrent_requests=1), route()
    async with looked_after(one):
        lost = await one.take(who, where, 0)
        assert isinstance(await one.take(who, where, 0), Refusal)
        del lost
        gc.collect()
        assert "without being settled" in caplog.text
        found = await one.take(who, where, 0)
        assert isinstance(found, Taken)
        found.settle(0)


async def test_whoever_leaves_while_the_count_is_asked_has_taken_nothing() -> None:
    memory = Memory(stuck=asyncio.Event())
    one, who, where = (
        limiter(memory),
        key(requests_per_minute=2, concurrent_requests=2, tokens_per_minute=9),
        route(),
    )
    async with looked_after(one):
        asking = [asyncio.ensure_future(one.take(who, where, 4)) for _ in range(2)]
        await until(lambda: memory.asks)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert memory.stuck is not None
        memory.stuck.set()
        await until(lambda: not one.dirty and one._running is None)
        assert [memory.used(who.holder, what) for what in (REQUESTS, TOKENS, SLOTS)] == [0, 0, 0]


async def test_other_limits_hold_from_the_next_request_on() -> None:
    one, who, where = limiter(Memory()), key(), route(requests_per_minute=2)
    async with looked_after(one):
        assert await rush(one, who, where, then=nothing) == 2
        more = replace(where, admission=Admission(quotas=Quotas(requests_per_minute=5)))
        assert await rush(one, who, more, then=nothing) == 3


async def test_a_limit_that_comes_or_goes_while_requests_run_counts_them_right() -> None:
    memory = Memory()
    one, who, where = limiter(memory), key(), route(requests_per_minute=100)

    def other(**quotas: int) -> Route:
        return replace(where, admission=Admission(quotas=Quotas(**quotas)))

    async with looked_after(one):
        running = [await one.take(who, where, 0) for _ in range(2)]
        strict = other(concurrent_requests=3)
        running.append(await one.take(who, strict, 0))
        assert isinstance(await one.take(who, strict, 0), Refusal)
        loose = other(requests_per_minute=100)
        running.append(await one.take(who, loose, 0))
        for taken in running:
            assert isinstance(taken, Taken)
            taken.settle(0)
        running = [await one.take(who, strict, 0) for _ in range(4)]
        assert [isinstance(taken, Taken) for taken in running] == [True, True, True, False]
        for taken in running:
            if isinstance(taken, Taken):
                taken.settle(0)
        await until(lambda: memory.used(f"endpoint:{where.endpoint_id}", SLOTS) == 0)


# ── in advance ───────────────────────────────────────────────────────────────────────────────────
async def test_a_busy_caller_far_from_its_limit_rarely_asks_and_others_get_all_that_is_left() -> None:
    memory = Memory()
    one, two, who, where = limiter(memory), limiter(memory), key(requests_per_minute=20_000), route()
    async with looked_after(one, two):
        at_once = 0

        async def few(taken: Taken) -> None:
            nonlocal at_once
            await nothing(taken)
            await asyncio.sleep(0)

        async def some(count: int) -> int:
            nonlocal at_once
            for _ in range(count):
                found = one.take_now(who, where, 0)
                at_once += found is not None
                await few(found if isinstance(found, Taken) else await one.take(who, where, 0))  # type: ignore[arg-type]
            return count

        mine = await some(8_000)
        assert at_once > 6_000
        assert mine + await rush(two, who, where, then=few) == 20_000
        assert memory.used(who.holder, REQUESTS) == 20_000


async def test_a_caller_who_goes_on_waits_for_no_judgement_and_leaves_nothing_counted_too_much() -> None:
    count, who, where, at = Memory(), key(requests_per_minute=10**6, concurrent_requests=10**4), route(), [0.0]
    one, waited = limiter(count, clock=lambda: at[0]), []
    async with looked_after(one):
        for number in range(400):
            at[0] += 0.001
            found = one.take_now(who, where, 0)
            if found is None:
                waited.append(number)
                found = await one.take(who, where, 0)
            assert isinstance(found, Taken)
            found.settle(0)
            await asyncio.sleep(0)
        assert waited[-1] < 100, "once it is known how busy the caller is, it always has some in advance"
        at[0] += 1
        await until(lambda: count.used(who.holder, REQUESTS) == 400, "what was left in advance to be given back")
        await until(lambda: count.used(who.holder, SLOTS) == 0, "and the slots")


# ── alone ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("how", ["away", "stuck"])
async def test_without_the_shared_count_each_gateway_keeps_the_limit_by_itself_and_says_so(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory()
    one, two = (limiter(memory, patience=0.25 if how == "stuck" else 30) for _ in range(2))
    who, where = key(requests_per_minute=6, concurrent_requests=3), route()
    async with looked_after(one, two):
        for each in (one, two):
            found = await each.take(who, where, 0)
            assert isinstance(found, Taken)
            found.settle(0)
        await until(lambda: not (one.dirty or two.dirty))
        memory.away, memory.stuck = how == "away", asyncio.Event() if how == "stuck" else None
        assert [await rush(each, who, where, then=nothing) for each in (one, two)] == [5, 5]
        assert one.health()["shared"] is False
        assert one.health()["problem"]
        assert caplog.text.count("counted by this gateway alone") == 2
        await one.look()
        assert one.health()["shared"] is False
        memory.away, memory.stuck = False, None
        for each in (one, two):
            await each.look()
            await until(lambda each=each: not each.dirty)
        assert one.health() == {"shared": True, "problem": None}
        await until(lambda: memory.used(who.holder, REQUESTS) == 12)  # told afterwards
        memory.now += 61_000
        one.shares.clear()
        assert await rush(one, who, where, then=nothing) == 6


async def test_slots_taken_alone_are_held_when_the_others_are_back() -> None:
    memory = Memory(away=True)
    one, two, who, where = limiter(memory), limiter(memory), key(concurrent_requests=3), route()
    async with looked_after(one, two):
        running = [await one.take(who, where, 0) for _ in range(2)]
        memory.away = False
        await one.look()
        await until(lambda: memory.used(who.holder, SLOTS) == 2)
        running.append(await two.take(who, where, 0))
        assert isinstance(await two.take(who, where, 0), Refusal)
        for taken in running:
            assert isinstance(taken, Taken)
            taken.settle(0)


async def test_a_count_that_lost_its_memory_is_told_what_passed() -> None:
    memory = Memory()
    one, who, where = limiter(memory), key(requests_per_minute=4, tokens_per_minute=1000), route()
    async with looked_after(one):
        for _ in range(3):
            found = await one.take(who, where, 100)
            assert isinstance(found, Taken)
            found.settle(120)
        memory.buckets = Buckets()
        assert await rush(one, who, where, tokens=10, then=using(10)) == 1
        await until(lambda: [memory.used(who.holder, what) for what in (REQUESTS, TOKENS)] == [4, 370])


def test_it_is_the_limiter_that_the_gateway_knows() -> None:
    one: Promised = limiter(Memory())
    assert one.take_now(key(requests_per_minute=1), route(), 0) is None
