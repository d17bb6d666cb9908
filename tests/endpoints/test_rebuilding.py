"""A build that says nothing for long keeps its phase; a place that lost what its instances run gets it again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from endpoints import bell, building, phase_work, rebuilding
from endpoints.models import Endpoint, Phase
from endpoints.models.deployment import PhaseKind, PhaseState
from endpoints.regions import replace_runtime
from endpoints.runtimes.base import Command, Rejected, Report, Unavailable, Unprepared, Workload
from endpoints.runtimes.process import ProcessRuntime
from tests import make
from tests.endpoints.runtimes.conftest import workload
from tests.endpoints.steering import Steering, register_model
from tests.runtimes import InstantRuntime
from tests.wait import until

pytestmark = pytest.mark.django_db


class Forgetful(InstantRuntime):
    """Starts nothing until it was prepared again. `problem`: what preparing raises."""

    lost = False
    problem: Exception | None = None
    builds = 0

    def prepare(self, command: Command, report: Report) -> str:
        self.builds += 1
        report("building")
        if self.problem:
            raise self.problem
        self.lost = False
        return "Built."

    def apply(self, workload: Workload) -> None:
        if self.lost and workload.replicas:
            raise Unprepared("The environment is gone")
        super().apply(workload)


@pytest.fixture
def place() -> Forgetful:
    return Forgetful()


@pytest.fixture
def steering(place: Forgetful, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steering]:
    yield Steering(place, monkeypatch)
    replace_runtime("local", None)


@pytest.fixture
def bereft(steering: Steering, place: Forgetful) -> Endpoint:
    """It served; then its environment went, and its instance with it."""
    register_model()
    make.instance_type()
    endpoint = Endpoint.launch(make.project(), make.spec(), by=make.user())
    steering.until(endpoint, "active")
    place.lost = True
    place.kill(*place.instances)
    bell.valkey().delete(f"{rebuilding.AT_IT}{endpoint.serving_revision_id}")
    return endpoint


def kinds(endpoint: Endpoint) -> list[str]:
    return list(endpoint.events.order_by("pk").values_list("kind", flat=True))


def test_what_was_lost_is_brought_again_and_the_endpoint_serves_on(bereft: Endpoint, steering: Steering) -> None:
    steering.reconcile(bereft)
    steering.until(bereft, "active")
    said = kinds(bereft)
    assert said.index("endpoint.rebuilding") < said.index("endpoint.rebuilt")


def test_what_can_not_be_had_any_more_halts_the_endpoint_with_the_reason(
    bereft: Endpoint, steering: Steering, place: Forgetful
) -> None:
    place.problem = Rejected("There is no image a/b any more")
    steering.until(bereft, "failed")
    assert bereft.halted_message == "There is no image a/b any more"


def test_an_outage_is_tried_again_later_and_said_once(
    bereft: Endpoint, steering: Steering, place: Forgetful, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "QUIET", 3600)  # by Valkey's clock, which no test turns
    place.problem = Unavailable("no index")
    for _ in range(2):
        steering.reconcile(bereft)
    before = place.builds
    assert before == 1, "many looks make one try"
    bell.valkey().delete(f"{rebuilding.AT_IT}{bereft.serving_revision_id}")  # as its time does
    steering.reconcile(bereft)
    assert place.builds == 2
    assert kinds(bereft).count("endpoint.rebuilding") == 1
    assert bereft.halted_at is None


def test_a_process_without_its_environment_leaves_no_trace_of_a_start(tmp_path: Path) -> None:
    runtime = ProcessRuntime(tmp_path)
    command = Command(engine="python", model=str(tmp_path), alias="m")
    with pytest.raises(Unprepared):
        runtime.apply(workload(command=command))
    assert runtime.observe() == {}


class Silent(InstantRuntime):
    """Says nothing until its phase's lease was renewed."""

    def prepare(self, command: Command, report: Report) -> str:
        began = Phase.objects.get(kind=PhaseKind.BUILD).lease_until
        until(lambda: Phase.objects.get(kind=PhaseKind.BUILD).lease_until != began)
        return "Built at last."


@pytest.mark.django_db(transaction=True)
def test_a_build_that_says_nothing_for_long_keeps_its_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phase_work, "LEASE", timedelta(seconds=0.3))
    make.region()
    make.instance_type()
    replace_runtime("local", Silent())
    try:
        endpoint = Endpoint.launch(make.project(), make.spec(), by=make.user())
        phase = Phase.objects.get(deployment__endpoint=endpoint, kind=PhaseKind.BUILD)
        Phase.objects.filter(pk=phase.pk).update(state=PhaseState.RUNNING, started_at=timezone.now())
        assert building.build(phase.deployment_id)
    finally:
        replace_runtime("local", None)
    phase.refresh_from_db()
    assert (phase.state, phase.message) == (PhaseState.DONE, "Built at last.")
