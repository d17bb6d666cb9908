"""The six phases: their order, their times, and how each of them fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from endpoints.models.deployment import MESSAGE_LEASE, PhaseKind
from endpoints.planner import RevisionFacts, limits
from endpoints.runtimes.base import Phase
from tests.endpoints.planner.world import World


@pytest.fixture
def world() -> World:
    made = World()
    made.deploy()
    return made


def test_a_deployment_goes_through_its_phases_in_order_without_gaps(world: World) -> None:
    world.run(until="active", seconds=60)
    phases = world.last_phases
    assert [phase.kind for phase in phases] == PhaseKind.values
    assert {phase.state for phase in phases} == {"done"}
    for one, following in pairwise(phases):
        assert one.started_at <= one.ended_at == following.started_at <= following.ended_at  # type: ignore[operator]
    loading = phases[3]
    assert loading.ended_at - loading.started_at >= timedelta(seconds=world.load_seconds)  # type: ignore[operator]


def test_every_phase_leaves_an_event_with_its_duration(world: World) -> None:
    world.run(until="active", seconds=60)
    ended = [note for note in world.notes if note.kind == "phase.ended"]
    # Validation is closed by the slow worker, which writes its own.
    assert [note.after for note in ended] == PhaseKind.values[1:]
    assert all(note.message.endswith(" s)") for note in ended)


def test_nothing_is_started_before_the_model_lies_there(world: World) -> None:
    world.slow_worker = False
    world.run(seconds=60)
    assert world.starts == 0
    world.slow_worker = True
    world.run(until="active", seconds=60)
    assert world.starts == 1


def test_a_lost_message_to_a_slow_worker_is_sent_again(world: World) -> None:
    world.slow_worker = False
    world.step()
    assert world.queued == ["endpoints.validate"]
    world.queued.clear()
    world.step(1)
    assert world.queued == []
    world.step(MESSAGE_LEASE.total_seconds())
    assert world.queued == ["endpoints.validate"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("validation", "ValidationTimeout"),
        ("allocation", "ResourceAllocationTimeout"),
        ("loading", "ModelLoadingTimeout"),
    ],
)
def test_a_phase_past_its_deadline_fails_with_its_reason(world: World, kind: str, reason: str) -> None:
    world.slow_worker = kind != "validation"
    world.slots = 0 if kind == "allocation" else 9
    world.load_seconds = 1e6
    world.run(seconds=900)
    assert world.facts.status == "failed"
    assert world.reasons == {1: reason}
    assert world.running == []
    failed = next(phase for phase in world.last_phases if phase.state == "failed")
    assert failed.kind == kind
    assert failed.ended_at >= failed.deadline  # type: ignore[operator]


def test_a_health_check_that_never_passes_fails_and_says_what_was_answered(world: World) -> None:
    from endpoints.planner import Probe  # noqa: PLC0415

    sick = "http://x: /v1/chat/completions answered 500: no memory"
    world.probes = lambda: {name: Probe(world.now, works=False, message=sick) for name in world.running}  # type: ignore[method-assign]
    world.run(seconds=600)
    assert world.reasons == {1: "HealthCheckTimeout"}
    assert sick in world.last_phases[4].message


def test_the_longer_deadline_of_a_larger_model() -> None:
    assert limits.loading_deadline(50 * 1024**3) > limits.loading_deadline(0) + timedelta(hours=2)


def test_no_room_says_so_in_numbers_and_goes_on_when_there_is_some(world: World) -> None:
    world.slots = 0
    world.run(seconds=10)
    assert world.facts.deployment is not None
    waiting = world.facts.deployment.phase("allocation")
    assert (waiting.state, waiting.reason) == ("running", "Unschedulable")
    assert waiting.message == "needs 2 vCPU, free is 0"
    world.slots = 1
    world.run(until="active", seconds=30)


def test_the_allocation_that_timed_out_says_what_was_short(world: World) -> None:
    world.slots = 0
    world.run(seconds=200)
    assert "needs 2 vCPU, free is 0" in world.last_phases[2].message


def test_room_for_some_serves_with_these_and_says_so() -> None:
    world = World(wanted=3, slots=2)
    world.deploy()
    world.run(until="degraded", seconds=120)
    assert len(world.rows("ready")) == 2
    assert world.deployments == {1: "succeeded"}
    assert "needs 2 vCPU" in world.facts.notice
    world.slots = 3
    world.run(until="active", seconds=60)
    assert world.facts.notice == ""


def test_three_crashes_fail_a_first_deployment_and_nothing_more_is_started(world: World) -> None:
    world.crash = (1, "out of luck")
    world.run(seconds=600)
    assert world.facts.status == "failed"
    assert world.starts == limits.CRASHES_WHILE_DEPLOYING
    assert world.reasons == {1: "CrashLoop"}
    assert "Out of luck." in world.last_phases[3].message


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("llama.cpp", "answered a real request"),
        ("onnx", "lists the model as loaded"),
        ("custom", "200 at /health"),
    ],
)
def test_a_health_check_says_no_more_than_was_tried(engine: str, said: str) -> None:
    world = World()
    world.revisions[1] = RevisionFacts(10, 1, "/models/it", engine=engine)
    world.serve(1)
    proofs = {kind: said in note.message for note in world.notes if (kind := note.after) == "health"}
    assert proofs == {"health": True}


@pytest.mark.parametrize(("code", "reason"), limits.NEVER_MENDS.items())
def test_an_exit_code_that_never_mends_fails_at_once(world: World, code: int, reason: str) -> None:
    world.crash = (code, "the model is not a GGUF file")
    world.run(seconds=60)
    assert world.reasons == {1: reason}
    assert world.starts == 1


def test_a_model_that_was_fetched_before_shows_its_bytes() -> None:
    world = World(fetched=True)
    world.deploy()
    loading: dict[str, object] = {}
    while not loading:
        loading = world.step().phases.get("loading", {})
    assert loading["bytes_done"] == loading["bytes_total"] == 1000


def test_waiting_writes_nothing_when_nothing_changed(world: World) -> None:
    world.load_seconds = 100
    world.run(seconds=10)
    for _ in range(20):
        planned = world.step(0.25)
        assert not planned.writes, planned
        assert planned.look_again_at


def test_a_model_that_comes_to_its_instance_shows_its_bytes() -> None:
    world = World()
    world.revisions[1] = RevisionFacts(10, 1, "/opt/model/a.gguf", model_bytes=1000)
    world.deploy()
    while not world.runs:
        world.step()
    (name,) = world.runs
    world.runs[name] = replace(world.runs[name], phase=Phase.STARTING, address=None, fetched=(400, 1000))
    changes = world.plan().phases[PhaseKind.LOADING]
    assert (changes["bytes_done"], changes["bytes_total"]) == (400, 1000)
    assert "brought" in changes["message"]
    world.run(until="active", seconds=60)
    assert world.last_phases[3].bytes_done == 1000
