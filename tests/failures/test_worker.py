"""The workers killed in each of a deployment's six phases: it comes through, nothing is doubled or left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from endpoints.runtimes.base import Phase
from tests.failures.conftest import FILE, REPOSITORY
from tests.failures.hurt import Hurt
from tests.hub import Fault
from tests.wait import until

pytestmark = pytest.mark.model

HUB_MODEL = {"kind": "huggingface", "model_id": REPOSITORY, "file": FILE}
LONG = {"messages": [{"role": "user", "content": "Tell a very long story."}], "max_tokens": 300}
KILLED = ("control", "slow")
SECONDS = 120.0  # a slow step's lease of 15 s is among them


def begin(hurt: Hurt, name: str, **changes: Any) -> None:
    answer = hurt.api("POST", "endpoints", hurt.wish(name, **changes))
    assert answer.status_code == 201, answer.text


def in_phase(hurt: Hurt, name: str, kind: str) -> None:
    until(lambda: hurt.phases(name).get(kind) == "running", seconds=60, what=f"{name} to be in {kind}")


def asking_the_hub(hurt: Hurt, name: str, *, pause: float) -> None:
    """Until the worker asks the Hub about the model, whose answer takes so many seconds."""
    with hurt.held(hurt.house.processes()["slow"]):
        begin(hurt, name, source=HUB_MODEL)
        in_phase(hurt, name, "validation")
        hurt.hub.fault(Fault("/api/models", pause=pause))
        asked = len(hurt.hub.requests)
    until(lambda: len(hurt.hub.requests) > asked, what="the Hub to be asked")


@contextmanager
def validation(hurt: Hurt, name: str) -> Iterator[None]:
    asking_the_hub(hurt, name, pause=20)
    yield
    hurt.hub.faults.clear()


@contextmanager
def build(hurt: Hurt, name: str) -> Iterator[None]:
    """Nothing is built for a ready-made container: the turn to it comes while the controller stands still."""
    asking_the_hub(hurt, name, pause=1)
    with hurt.held(hurt.house.processes()["control"]):
        until(lambda: hurt.phases(name)["validation"] == "done", what="its validation")
        assert hurt.phases(name)["build"] == "waiting"
        yield


@contextmanager
def allocation(hurt: Hurt, name: str) -> Iterator[None]:
    """All virtual cores are taken, until the worker has been killed."""
    hurt.deploy("greedy", instance_type="c6i.xlarge")
    begin(hurt, name)
    in_phase(hurt, name, "allocation")
    until(
        lambda: "Unschedulable" in str(hurt.api("GET", f"endpoints/{name}").json()), what="the shortage to be said"
    )
    yield
    hurt.delete("greedy")


@contextmanager
def loading(hurt: Hurt, name: str) -> Iterator[None]:
    """The model comes slowly over the network."""
    begin(hurt, name, source=HUB_MODEL)
    hurt.hub.fault(Fault("/cdn/", pause=0.01, times=10_000))
    until(lambda: fetched(hurt, name) > 1_000_000, seconds=60, what="the model to come in")
    yield
    hurt.hub.faults.clear()


def fetched(hurt: Hurt, name: str) -> int:
    (row,) = [row for row in hurt.rows("phases", endpoint=name) if row["kind"] == "loading"]
    return row["bytes_done"] or 0 if row["state"] == "running" else 0


@contextmanager
def health(hurt: Hurt, name: str) -> Iterator[None]:
    """The engine is healthy and busy with a long answer, so that the one real call of the check has to wait."""
    begin(hurt, name)
    address = until(lambda: next(iter(addresses(hurt, name)), None), seconds=30, every=0.005, what="an instance")
    with hurt.held(hurt.house.processes()["control"]):
        until(lambda: healthy(address), seconds=30, what="the engine to be healthy")
        caller = threading.Thread(target=busy, args=(address,), daemon=True)
        caller.start()
    control = psutil.Process(hurt.house.processes()["control"])
    until(lambda: asks(control, address), every=0.005, what="the controller to ask the engine")
    yield
    caller.join(90)


def asks(process: psutil.Process, address: str) -> bool:
    """Whether it has a connection to this address."""
    port = urlsplit(address).port
    return any(one.raddr and one.raddr.port == port for one in process.net_connections("tcp"))


def addresses(hurt: Hurt, name: str) -> list[str]:
    return [seen.address for seen in hurt.running(name).values() if seen.address]


def healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def busy(address: str) -> None:
    httpx.post(f"{address}/v1/chat/completions", json=LONG, trust_env=False, timeout=90)


@contextmanager
def ready(hurt: Hurt, name: str) -> Iterator[None]:
    """One of two instances serves; the other does not get on."""
    with hurt.held(hurt.house.processes()["control"]):
        begin(hurt, name)
        hurt.scale(name, 2)
    until(lambda: len(hurt.running(name)) == 2, seconds=60, every=0.005, what="two instances")
    late = max(hurt.processes_of(name).values(), key=lambda one: one.labels.name)
    with hurt.held(late.supervisor or 0, family=True):
        in_phase(hurt, name, "ready")
        yield


IN: dict[str, Any] = {each.__name__: each for each in (validation, build, allocation, loading, health, ready)}


@pytest.mark.parametrize("phase", IN)
def test_workers_killed_in_a_phase_leave_a_deployment_that_comes_through(hurt: Hurt, phase: str) -> None:
    name, wanted = f"in-{phase}", 2 if phase == "ready" else 1
    with ExitStack() as scene:
        scene.enter_context(scene_of(phase, hurt, name))
        before = hurt.house.processes()
        hurt.kill(*KILLED)
    until(lambda: hurt.is_whole(name, wanted), seconds=SECONDS, every=0.1, what=f"{name} to come through")
    after = hurt.house.processes()
    assert all(after[program] != before[program] for program in KILLED)

    made = hurt.rows("instances", endpoint=name)
    assert [row["state"] for row in made] == ["ready"] * wanted, made  # never one too many, never one that failed
    assert set(hurt.phases(name).values()) == {"done"}
    assert hurt.call(name, "chat/completions", {**LONG, "max_tokens": 2}).status_code == 200

    owner = hurt.owner(name)
    hurt.delete(name)
    until(lambda: not living(hurt, owner), seconds=60, what="everything of it to end")


def scene_of(phase: str, hurt: Hurt, name: str) -> AbstractContextManager[None]:
    made: AbstractContextManager[None] = IN[phase](hurt, name)
    return made


def living(hurt: Hurt, owner: str) -> list[str]:
    return [name for name, seen in hurt.runtime.observe(owner).items() if seen.phase != Phase.EXITED]
