"""The gateway as processes: two of them share a limit, and one holds a crowd while its endpoint wakes."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.stack.whole import Stack
from tests.wait import until
from tir_console.up.options import BASE_DIR
from tir_console.up.ports import free_port
from tir_console.up.program import answers

pytestmark = pytest.mark.model

NAME = "shared"
LIMIT, CLIENTS = 40, 16  # requests a minute; clients of each gateway
MINUTE = 59.0  # seconds in which nothing that was let in has left the count
CROWD = 50


@pytest.fixture(scope="module")
def served(stack: Stack) -> Iterator[Stack]:
    stack.deploy(NAME, scaling={"min_instances": 0, "max_instances": 1})
    yield stack
    stack.delete(NAME)


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    everybody = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with httpx.Client(trust_env=False, timeout=180, limits=everybody) as client:
        yield client


# ── two gateways ─────────────────────────────────────────────────────────────────────────────────
@contextmanager
def another_gateway(stack: Stack) -> Iterator[str]:
    """One more process beside the console's own, on the same data; its address."""
    decided = json.loads((stack.house.data / "run" / "environment.json").read_text())
    port = free_port()
    environ = stack.house.environ() | decided | {"GATEWAY_PORT": str(port)}
    with (stack.house.data / "logs" / f"gateway-{port}.log").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.stack.patient"], cwd=BASE_DIR, env=environ, stdout=said, stderr=said
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: answers(f"{url}/healthz"), seconds=180, what="another gateway")
            yield url
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def gateways(served: Stack) -> Iterator[list[str]]:
    with ExitStack() as running:
        yield [running.enter_context(another_gateway(served)) for _ in range(2)]


def limited_key(stack: Stack, name: str) -> str:
    made = stack.api("POST", "service-accounts", {"name": name, "requests_per_minute": LIMIT})
    assert made.status_code == 201, made.text
    return str(made.json()["secret"])


def rush(http: httpx.Client, gateways: list[str], key: str) -> tuple[int, float]:
    """How many calls pass when many clients call at once, each until it is refused although the limit is reached;
    and the seconds that all of it took."""
    passed: list[str] = []
    began = time.monotonic()

    def call(url: str) -> bool:
        answer = http.get(f"{url}/e/{NAME}/v1/models", headers={"Authorization": f"Bearer {key}"})
        if answer.status_code == 200:
            assert answer.headers["x-ratelimit-limit-requests"] == str(LIMIT)
            passed.append(url)
            return True
        assert answer.status_code == 429, answer.text
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(answer.headers["retry-after"]) > 0
        return False

    def client(url: str) -> None:
        reached = False
        while (call(url) or not reached) and time.monotonic() - began < MINUTE:
            reached = len(passed) >= LIMIT

    assert all(call(url) for url in gateways), "each lets calls pass"
    with ThreadPoolExecutor(len(gateways) * CLIENTS) as threads:
        list(threads.map(client, gateways * CLIENTS))
    return len(passed), time.monotonic() - began


def test_two_gateways_share_one_limit_exactly(served: Stack, http: httpx.Client, gateways: list[str]) -> None:
    for attempt in range(3):  # the last minute's calls can be told apart only within one
        passed, seconds = rush(http, gateways, limited_key(served, f"limited-{attempt}"))
        if seconds < MINUTE:
            break
    assert (passed, seconds < MINUTE) == (LIMIT, True), f"{passed} passed in {seconds:.0f} s"


# ── to zero and back ─────────────────────────────────────────────────────────────────────────────
def told(stack: Stack) -> dict[str, int]:
    """How often the endpoint's history tells of each kind of event."""
    items = stack.api("GET", f"endpoints/{NAME}/events?limit=200").json()["items"]
    kinds = [item["kind"] for item in items]
    return {kind: kinds.count(kind) for kind in ("endpoint.woken", "instance.started")}


def sleeps(stack: Stack, http: httpx.Client) -> bool:
    """By the gateway's own word, which reads the console's a moment later."""
    known = http.get(f"{stack.gateway_url}/e/{NAME}/health").json()
    return bool(known["status"] == "idle")


def test_a_crowd_wakes_a_sleeping_endpoint_once_and_everybody_is_answered(
    served: Stack, http: httpx.Client
) -> None:
    assert served.api("POST", f"endpoints/{NAME}/scale", {"instances": 0}).status_code == 200
    served.wait_status(NAME, "idle")
    until(lambda: sleeps(served, http), what="the gateway to know")
    before = told(served)
    wish = {"messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 2}
    bearer = {"Authorization": f"Bearer {served.key('inference')}"}

    def ask() -> httpx.Response:
        return http.post(f"{served.gateway_url}/e/{NAME}/v1/chat/completions", json=wish, headers=bearer)

    def all_wait() -> bool:
        return bool(http.get(f"{served.gateway_url}/healthz").json()["queued"] == CROWD)

    with ThreadPoolExecutor(CROWD) as threads:
        with served.held(served.house.processes()["control"], family=True):  # or it wakes before all have come
            calls = [threads.submit(ask) for _ in range(CROWD)]
            until(all_wait, what="all to wait")
        got = [call.result() for call in calls]
    assert [one.status_code for one in got] == [200] * CROWD
    assert all(one.json()["usage"]["completion_tokens"] > 0 for one in got)
    assert {one.headers["x-cold-start"] for one in got} == {"1"}
    assert all(int(one.headers["x-queue-ms"]) > 0 for one in got)
    assert told(served) == {kind: times + 1 for kind, times in before.items()}
    after = ask()
    assert (after.status_code, "x-cold-start" in after.headers) == (200, False)
