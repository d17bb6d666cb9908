"""Instances that crash, vanish, fall silent, or run though nobody wants them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from endpoints.planner import RevisionFacts, limits
from endpoints.planner.seen import cause
from endpoints.runtimes.base import Observed, Phase
from tests.endpoints.planner.world import OWNER, World


@pytest.fixture
def world() -> World:
    made = World(wanted=2)
    made.serve(2)
    made.run(seconds=1)
    made.notes.clear()
    return made


def test_a_killed_instance_is_replaced_and_the_event_says_why(world: World) -> None:
    gone = world.running[0]
    world.kill(gone, 137, "killed by signal 9")
    world.step()
    assert world.facts.status == "degraded"
    failed = next(note for note in world.notes if note.kind == "instance.failed")
    assert (failed.instance, failed.reason) == (gone, "Killed")
    assert "SIGKILL" in failed.message
    assert "137" in failed.message
    world.run(until="active", seconds=30)
    assert len(world.running) == 2


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (1, "no luck", "Exited"),
        (139, "", "Killed"),
        (200, "", "Killed"),
        (137, "out of memory", "OutOfMemory"),
        (None, "", "Lost"),
        (66, "the file is gone", "Exited"),
    ],
)
def test_every_end_has_a_reason(world: World, code: int | None, message: str, reason: str) -> None:
    gone = world.running[0]
    world.kill(gone, code, message)
    world.step()
    assert world.closed[gone]["reason"] == reason
    assert world.closed[gone]["message"]


def test_one_that_its_region_ends_takes_nothing_new_and_is_no_crash(world: World) -> None:
    """As when a node is drained: the cluster makes another by itself, and nobody is told to go for that."""
    gone, other = world.running
    world.runs[gone] = replace(world.runs[gone], leaving=True, reason="EvictionByEvictionAPI")
    made = f"{gone}-again"
    world.runs[made] = replace(
        world.runs[other], name=made, phase=Phase.STARTING, address=None, started_at=world.now
    )
    planned = world.step()
    assert world.rows("draining") == [gone]
    told = next(note for note in planned.notes if note.kind == "instance.draining")
    assert (told.instance, told.reason) == (gone, "EvictionByEvictionAPI")
    world.run(until="active", seconds=30)
    assert world.starts == 2
    assert sorted(world.rows("ready")) == sorted([other, made])
    del world.runs[gone]
    world.run(seconds=60)
    assert (world.closed[gone]["state"], world.facts.failures) == ("stopped", ())
    assert sorted(world.running) == sorted([other, made])


def test_one_that_its_region_ends_is_replaced_where_nobody_else_does_that(world: World) -> None:
    gone = world.running[0]
    world.runs[gone] = replace(world.runs[gone], leaving=True)
    (order,) = world.plan().actions
    assert (order.replicas, order.retire) == (2, ())  # type: ignore[union-attr]  # the one that stays, and another


def test_one_that_vanished_without_a_trace_is_replaced(world: World) -> None:
    gone = world.running[0]
    del world.runs[gone]
    world.step()
    assert world.closed[gone]["reason"] == "Vanished"
    world.run(until="active", seconds=30)


def test_five_crashes_while_serving_halt_the_endpoint_until_a_person_acts(world: World) -> None:
    started = world.starts
    world.crash = (1, "bad")
    for name in world.running:
        world.kill(name, 1, "bad")
    world.run(seconds=550)
    assert world.facts.halted
    assert world.facts.status == "failed"
    # Each may fall once more than one alone could; the two that served count as well.
    assert world.starts - started == limits.CRASHES_WHILE_SERVING + 1 - 2
    halted = [note for note in world.notes if note.kind == "endpoint.halted"]
    assert len(halted) == 1
    assert halted[0].message.endswith("The last: Bad.")
    before = world.starts
    world.run(seconds=3600, step=5)
    assert world.starts == before
    world.crash = None
    world.wish()
    world.run(until="active", seconds=30)


def test_all_falling_at_once_is_no_crash_loop() -> None:
    """The machine was restarted."""
    world = World()
    world.serve(8)
    for name in world.running:
        world.kill(name, None, "")
    world.run(until="active", seconds=30)
    assert not world.facts.halted


def test_an_end_that_never_mends_halts_at_once(world: World) -> None:
    started = world.starts
    world.crash = (65, "not a GGUF file")
    world.kill(world.running[0], 1)
    world.run(seconds=60)
    assert world.facts.halted
    assert world.starts == started + 1
    assert world.facts.status == "degraded"  # the other one serves on


def test_the_wait_before_a_new_start_grows(world: World) -> None:
    world.crash = (1, "bad")
    world.kill(world.running[0], 1)
    begun = world.now
    starts = []
    while not world.facts.halted:
        before = world.starts
        world.step(0.25)
        starts += [(world.now - begun).total_seconds()] * (world.starts - before)
    waits = [round(later - earlier) for earlier, later in pairwise(starts)]
    assert waits == sorted(waits)
    assert waits[-1] >= 4
    assert limits.back_off(50) == timedelta(seconds=60)
    assert limits.back_off(1) == timedelta(0)


def test_three_unanswered_probes_take_an_instance_out_of_the_routes_and_an_answer_brings_it_back(
    world: World,
) -> None:
    silent = world.running[0]
    world.silent.add(silent)
    world.healthy.discard(silent)
    for failures in (1, 2):
        world.step()
        assert world.rows("unready") == []
        assert world.facts.instances[0].probe_failures == failures
    world.step()
    assert world.rows("unready") == [silent]
    assert world.facts.status == "degraded"
    world.silent.clear()
    world.step()
    assert world.rows("unready") == []
    assert world.facts.instances[0].unready_at is None
    assert world.facts.status == "active"
    assert world.kinds() == [
        "instance.unready", "endpoint.status", "instance.ready", "endpoint.status"
    ]  # fmt: skip


def test_one_silent_for_a_minute_is_replaced_and_counts_as_a_failure(world: World) -> None:
    silent = world.running[0]
    world.silent.add(silent)
    world.healthy.discard(silent)
    world.run(seconds=limits.UNREADY_DEADLINE.total_seconds())
    assert silent in world.running
    world.run(seconds=5)
    assert silent not in world.running
    assert world.closed[silent]["reason"] == "Unresponsive"
    assert len(world.facts.failures) == 1
    world.run(until="active", seconds=30)


def test_waiting_for_a_silent_one_writes_nothing(world: World) -> None:
    silent = world.running[0]
    world.silent.add(silent)
    world.healthy.discard(silent)
    world.run(seconds=10)
    for _ in range(10):
        assert world.step().is_empty


def test_a_replacement_that_never_gets_ready_is_given_up(world: World) -> None:
    world.load_seconds = 1e6
    world.kill(world.running[0])
    world.run(seconds=2)
    stuck = world.running[-1]
    world.run(seconds=limits.start_deadline(1000).total_seconds() + 5, step=2)
    assert world.closed[stuck]["reason"] == "StartTimeout"
    assert stuck not in world.running


def test_a_start_that_takes_too_long_ends_with_what_kept_it(world: World) -> None:
    world.kill(world.running[0])
    world.load_seconds = 1e6
    world.step()
    stuck = world.running[-1]
    why = {"reason": "ImagePullBackOff", "message": "the registry refuses a/b:1"}
    world.runs[stuck] = replace(world.runs[stuck], **why)  # type: ignore[arg-type]
    world.run(seconds=limits.start_deadline(1000).total_seconds() + 5, step=2)
    assert world.closed[stuck]["reason"] == "ImagePullBackOff"
    assert "The registry refuses a/b:1." in str(world.closed[stuck]["message"])


def test_what_an_image_of_ones_own_ends_with_is_no_code_of_ours() -> None:
    world = World()
    world.revisions[1] = RevisionFacts(10, 1, "(in the image)", engine="custom")
    world.serve(1)
    world.kill(world.running[0], 64, "its own affair")
    world.run(until="active", seconds=30)
    assert not world.facts.halted
    assert world.starts == 2


def test_what_runs_though_its_row_is_closed_is_stopped(world: World) -> None:
    gone = world.running[0]
    kept = world.runs.pop(gone)
    world.run(seconds=5)
    world.runs[gone] = kept  # the runtime had lost sight of it
    world.run(seconds=2)
    assert gone not in world.running
    assert len(world.running) == 2


def test_an_instance_that_nobody_wrote_down_is_adopted(world: World) -> None:
    """A run was killed after it started the instance."""
    world.wish(wanted=3)
    world.step()
    fresh = world.running[-1]
    assert fresh not in world.rows("starting")
    world.step()
    assert len(world.running) == 3
    assert fresh in [one.name for one in world.facts.instances]


def test_one_that_came_and_went_between_two_looks_counts_as_a_crash(world: World) -> None:
    name = f"{OWNER}-r1-x"
    world.runs[name] = Observed(name, OWNER, 1, Phase.EXITED, None, 1, "bad", world.now, world.now)
    world.step()
    assert world.closed[name]["state"] == "failed"
    assert len(world.facts.failures) == 1


def test_a_crash_from_before_the_wish_does_not_count_against_it(world: World) -> None:
    name = world.running[0]
    world.kill(name, 65, "not a GGUF file")
    world.now += timedelta(seconds=1)
    world.wish()
    world.step()
    assert not world.facts.halted
    world.run(until="active", seconds=30)


def test_an_instance_of_an_unknown_revision_stops_nobody(world: World) -> None:
    name = f"{OWNER}-r9-x"
    world.runs[name] = Observed(name, OWNER, 9, Phase.RUNNING, None, None, "", world.now, None)
    assert world.step().is_empty


def test_an_instance_that_dies_while_it_drains_was_asked_to_go(world: World) -> None:
    world.in_flight = None
    world.wish(wanted=1)
    world.step()
    (going,) = world.rows("draining")
    world.kill(going, 137)
    world.step()
    assert world.closed[going]["state"] == "stopped"
    assert not world.facts.failures
    assert world.facts.status == "active"


def test_no_room_for_a_replacement_is_said_at_the_endpoint_and_taken_back(world: World) -> None:
    world.slots = 1
    world.kill(world.running[0])
    world.run(seconds=5)
    assert world.facts.status == "degraded"
    assert world.facts.notice == "needs 2 vCPU, free is 0"
    assert world.kinds().count("endpoint.short") == 1
    world.slots = 2
    world.run(until="active", seconds=30)
    assert world.facts.notice == ""


def test_losing_all_during_an_update_still_ends_well(world: World) -> None:
    world.deploy(2)
    world.run(seconds=1)
    for name in world.running:
        world.kill(name)
    world.run(until="active", seconds=120)
    assert {one.revision_id for one in world.facts.instances} == {20}


@pytest.mark.parametrize(
    ("code", "said", "reason", "message"),
    [
        (137, "killed by signal 9", "Killed", "Ended by SIGKILL (exit code 137)."),
        (139, "killed by signal 11: at layer 3", "Killed", "Ended by SIGSEGV (exit code 139). At layer 3."),
        (1, "exit code 1: no room", "Exited", "Exit code 1: no room."),
        (65, "exit code 65: not a model", "BadModelFile", "Exit code 65: not a model."),
        (137, "killed: it needed more memory than its limit", "OutOfMemory",
         "Killed: it needed more memory than its limit."),
        (3, "", "Exited", "Exit code 3."),
        (1, "exit code 1: CUDA out of memory. Tried to allocate 2.00 GiB.", "OutOfMemory",
         "Exit code 1: CUDA out of memory. Tried to allocate 2.00 GiB."),
        (134, "killed by signal 6: what(): std::bad_alloc", "OutOfMemory",
         "Killed by signal 6: what(): std::bad_alloc."),
        (137, "killed by signal 9: CUDA out of memory, trying less", "Killed",
         "Ended by SIGKILL (exit code 137). CUDA out of memory, trying less."),
        (1, "exit code 1: Model loading took 2.1 GiB memory", "Exited",
         "Exit code 1: Model loading took 2.1 GiB memory."),
    ],
)  # fmt: skip
def test_an_end_is_told_in_whole_sentences_and_once(code: int, said: str, reason: str, message: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    one = Observed("a", "endpoint-1", 1, Phase.EXITED, None, code, said, at, at)
    assert cause(one) == (reason, message)
