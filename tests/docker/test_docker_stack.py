"""A whole console with a Docker region: what a person gets, and what stands when things around it fall."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import pytest

from tests.docker.engine import Engine, left_over
from tests.docker.python_image import prebuilt
from tests.hub import Hub
from tests.stack.whole import Settled, Stack
from tests.wait import until

pytestmark = pytest.mark.model

NAME, OWN = "in-a-container", "own-image"
CHAT = {"model": NAME, "messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 2}
OWN_IMAGE = "tir-test/own:1"
SERVER = """#!/bin/sh
mkdir -p /tmp/www/deep && cd /tmp/www
echo well > health; echo "from $(id -u) with $GREETING" > deep/page.txt
exec httpd -f -p 9000 -h /tmp/www
"""
PREPARE = """
from django.db import transaction
from endpoints.models import Region
Region.objects.create(slug="docker", name="Docker here", runtime="docker", config={config!r})
"""
UPDATE = """
from dataclasses import replace
from endpoints.models import Endpoint
endpoint = Endpoint.objects.living().get(name={name!r})
spec = endpoint.serving_revision.wish
endpoint.deploy(replace(spec, environment=replace(spec.environment, variables={{"ROUND": "2"}})), by=None)
"""


@pytest.fixture(scope="module")
def docked(engine: Engine) -> Iterator[Stack]:
    prebuilt(engine, "llama.cpp")
    engine.add_image(OWN_IMAGE, {"bin/server": SERVER}, changes=['CMD ["/bin/server"]'])
    with Hub({}) as hub, TemporaryDirectory(prefix="tir-docked-") as folder:
        house = Settled(Path(folder) / "data", variables={"CPU_OVERCOMMIT": "8"})
        house.start("manage.py", "up", "--no-input")
        try:
            house.wait_ready(seconds=240)
            stack = Stack(house, hub, Path(folder))
            config = {"hosts": [{"name": "here", "url": engine.url}]}
            tell(stack, PREPARE.format(config=config))
            stack.deploy(NAME, region="docker")
            yield stack
        finally:
            house.run("manage.py", "up", "--stop-all", "--no-input")
            house.clean()


def tell(stack: Stack, code: str) -> str:
    """Do what no page of the demo's owner does."""
    done = stack.house.run("manage.py", "shell", "-v", "0", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def containers(engine: Engine, **filters: Any) -> list[dict[str, Any]]:
    return list(engine.client.containers(filters={"label": "tir.owner"} | filters))


def chats(stack: Stack) -> httpx.Response:
    return stack.call(NAME, "chat/completions", CHAT)


def test_the_demo_model_answers_from_inside_its_walls(docked: Stack, engine: Engine) -> None:
    answer = chats(docked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    (one,) = containers(engine)
    walls = engine.client.inspect_container(one["Id"])
    limits = walls["HostConfig"]
    assert (limits["Memory"], limits["MemorySwap"], limits["NanoCpus"]) == (4 << 30, 4 << 30, 2 * 10**9)
    assert limits["ReadonlyRootfs"]
    assert limits["CapDrop"] == ["ALL"]
    assert limits["SecurityOpt"] == ["no-new-privileges"]
    assert walls["Config"]["User"] == "65532:65532"
    assert [mount["RW"] for mount in walls["Mounts"]] == [False]
    (published,) = walls["NetworkSettings"]["Ports"]["8000/tcp"]
    assert published["HostIp"] == "127.0.0.1"


def test_its_log_and_what_it_uses_are_shown(docked: Stack) -> None:
    lines = until(lambda: docked.api("GET", f"endpoints/{NAME}/logs").json().get("lines"), what="lines of its log")
    assert any("model" in line["text"] for line in lines)


def test_a_rollout_under_load_loses_no_request(docked: Stack, engine: Engine) -> None:
    (old,) = containers(engine)
    answers: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.append(chats(docked).status_code)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for one in asking:
        one.start()
    try:
        tell(docked, UPDATE.format(name=NAME))
        until(
            lambda: docked.api("GET", f"endpoints/{NAME}").json()["serving_revision"] == 2,
            seconds=180,
            what=lambda: docked.api("GET", f"endpoints/{NAME}").text,
        )
        until(
            lambda: old["Id"] not in [one["Id"] for one in containers(engine)],
            seconds=180,
            what="the old one's end",
        )
    finally:
        done.set()
        for one in asking:
            one.join()
    assert len(answers) > 3
    assert set(answers) == {200}


def test_a_killed_engine_takes_nothing_down_and_is_taken_up_again(docked: Stack, engine: Engine) -> None:
    """What runs goes on; only the engine's own forwarding of a port on loopback ends with it."""
    before = [one["Id"] for one in containers(engine)]
    engine.kill()
    engine.start()
    until(lambda: chats(docked).status_code == 200, seconds=120, what=lambda: chats(docked).text)
    docked.wait_status(NAME, "active")
    assert [one["Id"] for one in containers(engine)] == before


def test_a_host_that_lost_everything_that_ran_gets_it_back(docked: Stack, engine: Engine) -> None:
    """As after a power cut: the engine comes back, and its containers have ended."""
    (before,) = containers(engine)
    inner = engine.client.inspect_container(before["Id"])["State"]["Pid"]
    engine.kill()
    psutil.Process(inner).send_signal(signal.SIGKILL)
    engine.start()
    until(lambda: [one for one in containers(engine) if one["Id"] != before["Id"]], seconds=120, what="another")
    docked.wait_status(NAME, "active")
    assert chats(docked).status_code == 200
    events = docked.api("GET", f"endpoints/{NAME}/events").text
    assert "degraded" in events.lower() or "failed" in events.lower()


def test_an_image_of_ones_own_answers_at_any_path(docked: Stack, engine: Engine) -> None:
    container = {"image": OWN_IMAGE, "port": 9000, "health_path": "/health"}
    wish = {"method": "custom", "region": "docker", "source": {"kind": "none"}, "container": container}
    environment = {"variables": {"GREETING": "good day"}}
    docked.deploy(OWN, **wish, environment=environment)
    headers = {"Authorization": f"Bearer {docked.key()}"}
    url = f"{docked.gateway_url}/e/{OWN}/deep/page.txt"
    answer = httpx.get(url, headers=headers, trust_env=False, timeout=60)
    assert (answer.status_code, answer.text) == (200, "from 65532 with good day\n")


def test_deleted_endpoints_leave_nothing_with_the_engine(docked: Stack, engine: Engine) -> None:
    docked.delete(NAME)
    docked.delete(OWN)
    mark = (docked.house.data / "installation").read_text()

    def left() -> list[str]:
        return left_over(engine, lambda labels: labels.get("tir.installation") == mark)

    def nothing() -> bool:
        tell(docked, "from endpoints.tasks import tidy_regions; tidy_regions()")
        return not left()

    until(nothing, seconds=120, every=1, what=lambda: f"nothing to be left; there are {left()}")
