"""Limits as the caller of a gateway meets them."""

from pathlib import Path

from gateway.buckets import REQUESTS, SLOTS, TOKENS
from gateway.routes import Admission, Quotas
from tests.gateway.counting import Memory
from tests.gateway.engine import Engine
from tests.gateway.house import House, house, until


def limited(**quotas: int) -> Admission:
    return Admission(quotas=Quotas(**quotas))


def used(gateway: House, what: int) -> int:
    counts = gateway.store.counts
    assert isinstance(counts, Memory)
    return counts.used("endpoint:5", what)


async def test_answers_say_what_is_left_and_the_one_too_many_is_refused(tmp_path: Path, engine: Engine) -> None:
    async with house(tmp_path, engine, admission=limited(requests_per_minute=2)) as gateway:
        left = [await gateway.ask(stream=stream) for stream in (False, True)]
        assert [(one.status_code, one.headers["x-ratelimit-remaining-requests"]) for one in left] == [
            (200, "1"), (200, "0"),
        ]  # fmt: skip
        refused = await gateway.ask()
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(refused.headers["retry-after"]) > 50
        assert (await gateway.settled(3))[2].status == 429
        assert used(gateway, REQUESTS) == 2


async def test_the_place_comes_back_however_a_request_ends(tmp_path: Path, engine: Engine) -> None:
    admission = limited(concurrent_requests=1, tokens_per_minute=100_000)
    async with house(tmp_path, engine, admission=admission) as gateway:
        whole = await gateway.ask(max_tokens=5000)
        counted = sum(whole.json()["usage"][name] for name in ("prompt_tokens", "completion_tokens"))
        await until(lambda: used(gateway, SLOTS) == 0, "the slot to come back")
        await until(lambda: used(gateway, TOKENS) == counted, "what was not used to come back")
        assert (await gateway.ask(model="another")).status_code == 404
        async with gateway.call.stream(
            "POST", "/e/tiny/v1/chat/completions", json={"messages": [], "stream": True}
        ):
            pass  # and leaves
        await until(lambda: used(gateway, SLOTS) == 0, "the slot of one who left to come back")
        await engine.stop()
        assert (await gateway.ask()).status_code in (502, 503)
        await until(lambda: used(gateway, SLOTS) == 0, "the slot of one that failed to come back")


async def test_health_says_when_limits_are_not_shared(gateway: House) -> None:
    assert (await gateway.call.get("/healthz")).json()["limits"] == {"shared": True, "problem": None}
    assert isinstance(gateway.store.counts, Memory)
    gateway.store.counts.away = True
    gateway.route(admission=limited(requests_per_minute=2))
    assert (await gateway.ask()).status_code == 200
    found = (await gateway.call.get("/healthz")).json()
    assert (found["status"], found["degraded"]) == ("degraded", ["Counting limits together"])
    assert found["limits"] == {"shared": False, "problem": "Valkey: refused"}
