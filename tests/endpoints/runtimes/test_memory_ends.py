"""A real process that runs out of memory, from its end to what the next deployment of the same is told."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from endpoints import preparation
from endpoints.controller import Turn
from endpoints.models import Endpoint, Instance, InstanceType, MemoryFloor, Phase
from endpoints.models.deployment import DeploymentState, PhaseKind, PhaseState
from endpoints.regions import replace_runtime
from endpoints.runtimes import limits
from endpoints.runtimes.process import ProcessRuntime
from endpoints.spec import EnvironmentSpec
from tests import make
from tests.endpoints.runtimes.conftest import processes
from tests.endpoints.steering import Steering, register_model
from tests.wait import until

pytestmark = pytest.mark.django_db
LIMIT = 64 << 20


class Patient(Steering):
    """Lets what was just started really come to its address or its end."""

    def _rest(self, turn: Turn, seconds: float) -> None:
        if turn.newborn:
            turn.runtime.wait(turn.endpoint.owner, turn.observed, seconds)
        super()._rest(turn, seconds)


@pytest.fixture(params=["as it is here", "without a cgroup"])
def steering(
    request: pytest.FixtureRequest, process: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Steering]:
    if request.param == "without a cgroup":
        monkeypatch.setattr(limits, "detect", lambda data: limits.Alone())
    yield Patient(process, monkeypatch)  # type: ignore[arg-type]  # a real one
    replace_runtime("local", None)


def launch(name: str, behave: str = "serve", **changes: object) -> Endpoint:
    make.instance_type(memory_bytes=LIMIT)
    project = make.project() if name == "first" else Endpoint.objects.get(name="first").project
    environment = EnvironmentSpec(variables={"BEHAVE": behave})
    wish = replace(make.spec(name), environment=environment, **changes)  # type: ignore[arg-type]
    return Endpoint.launch(project, wish, by=project.memberships.get().user)


def run(steering: Steering, endpoint: Endpoint, ends: Callable[[], bool]) -> None:
    def look() -> bool:
        steering.reconcile(endpoint)
        return ends()

    until(look, seconds=90, what=lambda: f"{endpoint.status}: {[str(one) for one in endpoint.events.all()[:5]]}")


def judged(endpoint: Endpoint) -> Phase:
    """Its validation, once that is over."""
    preparation.validate(endpoint.deployments.get().pk)
    return Phase.objects.get(deployment__endpoint=endpoint, kind=PhaseKind.VALIDATION)


def deployed(steering: Steering, endpoint: Endpoint) -> str:
    """How its deployment ended."""
    run(steering, endpoint, lambda: endpoint.deployments.get().finished)
    return str(endpoint.deployments.get().state)


def test_what_ran_out_of_memory_is_not_said_to_fit_again(steering: Steering) -> None:
    register_model()
    first = launch("first", "hungry")
    assert judged(first).state == PhaseState.DONE, "it was thought to fit"
    assert deployed(steering, first) == DeploymentState.FAILED
    ends = Instance.objects.filter(endpoint=first).order_by("ended_at")
    assert [one.reason for one in ends] == ["OutOfMemory"] * len(ends)
    assert len(ends) > 1
    noted = MemoryFloor.objects.get()
    assert (noted.limit_bytes, noted.length, noted.concurrency) == (LIMIT, 2048, 1)
    assert noted.ended_at == ends[len(ends) - 1].ended_at

    again = judged(launch("second"))
    assert (again.state, again.reason) == (PhaseState.FAILED, "DoesNotFit")
    assert "An instance of this model ran out of memory at 0.0625 GiB on" in again.message
    assert "It needs more than 0.06 GiB and c6i.large has 0.06 GiB." in again.message

    own = judged(launch("own", memory_gib=0.05))
    assert own.state == PhaseState.DONE
    assert "by your own figure: needs 0.05 GiB of 0.06 GiB. An instance of this model ran out" in own.message

    InstanceType.objects.update(memory_bytes=4 * LIMIT)
    larger = judged(launch("larger"))
    assert larger.state == PhaseState.DONE
    assert "needs more than 0.06 GiB of 0.25 GiB" in larger.message


def test_what_somebody_killed_ran_out_of_nothing(steering: Steering, process: ProcessRuntime) -> None:
    register_model()
    endpoint = launch("first")
    assert deployed(steering, endpoint) == DeploymentState.SUCCEEDED
    name = endpoint.instances.live().get().name
    os.kill(processes(process, name).engines[0], signal.SIGKILL)
    run(steering, endpoint, lambda: Instance.objects.get(name=name).ended_at is not None)
    assert Instance.objects.get(name=name).reason == "Killed"
    assert not MemoryFloor.objects.exists()
