"""Which instances run: rollouts, restarts, scaling, drains, and the end of everything."""

from __future__ import annotations

import pytest

from endpoints.planner import limits
from tests.endpoints.planner.world import World


@pytest.fixture
def world() -> World:
    made = World(wanted=2)
    made.serve(2)
    made.fewest_ready = 99
    return made


def test_an_update_never_leaves_fewer_than_wanted_and_never_more_than_one_too_many(world: World) -> None:
    world.deploy(2)
    while world.facts.status != "active" or world.facts.deployment:
        world.step()
        staying = [one for one in world.facts.instances if one.state != "draining"]
        assert len(staying) <= 2 + limits.SURGE
    assert world.fewest_ready >= 2
    assert {one.revision_id for one in world.facts.instances if one.state == "ready"} == {20}
    assert world.facts.serving is not None
    assert world.facts.serving.number == 2


def test_the_old_serves_on_after_a_failed_update(world: World) -> None:
    world.crash = (1, "bad")
    world.deploy(2)
    world.run(seconds=120)
    assert world.deployments[2] == "failed"
    assert world.facts.status == "active"
    assert world.fewest_ready >= 2
    assert {one.revision_id for one in world.facts.instances} == {10}
    assert any("Revision 1 serves on." in note.message for note in world.notes)


def test_an_update_cancelled_half_way_goes_back_without_a_gap(world: World) -> None:
    world.deploy(2)
    while not any(one.revision_id == 20 and one.state == "ready" for one in world.facts.instances):
        world.step()
    world.give_up()
    world.run(until="active", seconds=60)
    world.run(seconds=90)
    assert world.fewest_ready >= 2
    assert {one.revision_id for one in world.facts.instances} == {10}


def test_a_restart_replaces_every_instance_by_one_of_the_same_revision(world: World) -> None:
    before = set(world.rows("ready"))
    world.deploy(1, restart=True)
    world.run(seconds=120)
    assert world.facts.status == "active"
    assert world.fewest_ready >= 2
    assert not before & set(world.running)
    assert len(world.running) == 2


def test_a_restart_goes_through_its_phases_before_it_starts_anything(world: World) -> None:
    world.slow_worker = False
    world.deploy(1, restart=True)
    world.run(seconds=30)
    assert len(world.running) == 2
    assert world.starts == 2


def test_a_restart_that_fails_leaves_the_old_instances_alone(world: World) -> None:
    before = set(world.rows("ready"))
    world.crash = (1, "bad")
    world.deploy(1, restart=True)
    world.run(seconds=300)
    assert world.deployments[2] == "failed"
    assert set(world.rows("ready")) == before
    assert world.facts.status == "active"
    assert not world.facts.halted


def test_a_cancelled_restart_stops_replacing(world: World) -> None:
    world.deploy(1, restart=True)
    world.run(seconds=4)
    world.give_up()
    world.run(seconds=120)
    starts = world.starts
    world.run(seconds=60)
    assert world.starts == starts
    assert len(world.running) == 2


def test_a_start_that_fails_where_nothing_serves_ends_there() -> None:
    world = World()
    world.serve(1)
    world.give_up("stopped")
    world.run(until="stopped", seconds=120)
    started = world.starts
    world.crash = (65, "not a GGUF file")
    world.deploy(1)
    world.run(seconds=300)
    assert world.facts.status == "failed"
    assert world.starts == started + 1
    assert world.running == []


def test_a_start_that_takes_too_long_leaves_nothing_running() -> None:
    world = World()
    world.serve(1)
    world.give_up("stopped")
    world.run(until="stopped", seconds=120)
    world.load_seconds = 1e6
    world.deploy(1)
    world.run(seconds=900)
    assert world.facts.status == "failed"
    assert world.running == []


def test_scaling_up_starts_what_is_missing_at_once(world: World) -> None:
    world.wish(wanted=5)
    world.step()
    world.step()
    assert len(world.running) == 5
    world.run(until="active", seconds=60)
    assert world.fewest_ready >= 2


def test_scaling_down_spares_those_that_carry(world: World) -> None:
    busy, empty = sorted(world.rows("ready"))
    world.in_flight = {busy: 3}
    world.wish(wanted=1)
    world.run(seconds=30)
    assert world.rows("ready") == [busy]
    assert world.closed[empty]["state"] == "stopped"


def test_an_instance_that_is_not_ready_goes_before_one_that_serves(world: World) -> None:
    world.load_seconds = 1e6
    serving = set(world.rows("ready"))
    world.wish(wanted=3)
    world.run(seconds=5)
    world.wish(wanted=2)
    world.run(seconds=90)
    assert set(world.running) == serving


def test_a_drain_leaves_the_routes_first_and_waits_for_what_is_in_flight(world: World) -> None:
    one, other = sorted(world.rows("ready"))
    world.in_flight = {one: 1, other: 2}
    world.wish(wanted=1)
    world.run(seconds=20)
    assert world.rows("draining") == [one]
    assert one in world.running
    world.in_flight = {other: 2}
    world.run(seconds=2)
    assert one not in world.running


def test_a_drain_ends_at_its_deadline_even_if_something_is_still_carried(world: World) -> None:
    world.in_flight = dict.fromkeys(world.running, 1)
    world.wish(desired="stopped")
    world.run(seconds=limits.DRAIN_DEADLINE.total_seconds() - 2)
    assert len(world.running) == 2
    world.run(seconds=4)
    assert world.running == []


def test_a_surplus_instance_may_end_its_longest_answer(world: World) -> None:
    world.in_flight = dict.fromkeys(world.running, 1)
    world.wish(wanted=1)
    world.run(seconds=limits.LONGEST_ANSWER.total_seconds() - 5, step=2)
    assert len(world.running) == 2
    world.run(seconds=10)
    assert len(world.running) == 1


def test_a_long_drain_is_left_to_the_sweep_and_ends_with_the_answer(world: World) -> None:
    world.in_flight = dict.fromkeys(world.running, 1)
    world.wish(wanted=1)
    world.run(seconds=limits.DRAIN_DEADLINE.total_seconds() + 5)
    planned = world.plan()
    assert planned.is_empty
    assert planned.look_again_at is None
    world.in_flight = {}
    world.run(seconds=2)
    assert len(world.running) == 1


def test_without_knowing_what_is_carried_a_drain_waits_for_the_deadline(world: World) -> None:
    world.in_flight = None
    world.wish(wanted=1)
    world.run(seconds=limits.DRAIN_DEADLINE.total_seconds() - 2)
    assert len(world.running) == 2
    world.run(seconds=4)
    assert len(world.running) == 1


def test_no_gateway_is_given_less_than_the_grace_to_notice(world: World) -> None:
    world.wish(wanted=1)
    world.run(seconds=limits.DRAIN_GRACE.total_seconds() - 0.5)
    assert len(world.running) == 2


def test_scaled_to_zero_is_not_stopped_and_not_failed(world: World) -> None:
    world.wish(wanted=0)
    world.run(until="idle", seconds=30)
    assert world.running == []


def test_waking_up_is_scaling_until_it_serves(world: World) -> None:
    world.wish(wanted=0)
    world.run(until="idle", seconds=30)
    world.wish(wanted=1)
    world.run(until="active", seconds=60)
    said = [(note.before, note.after) for note in world.notes if note.kind == "endpoint.status"]
    assert said[-2:] == [("Scaled to zero", "Scaling"), ("Scaling", "Active")]


def test_one_that_ends_while_it_wakes_up_is_lost(world: World) -> None:
    world.wish(wanted=0)
    world.run(until="idle", seconds=30)
    world.wish(wanted=1)
    world.step()
    world.step()
    world.kill(world.running[0])
    world.step()
    assert world.facts.status == "degraded"
    world.run(until="active", seconds=60)


def test_a_deployment_proves_itself_even_where_nothing_is_wanted_later(world: World) -> None:
    world.deploy(2)
    world.step()
    world.wish(wanted=0)
    world.run(until="idle", seconds=120)
    assert world.deployments[2] == "succeeded"


@pytest.mark.parametrize("after", [0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("desired", "end"), [("stopped", "stopped"), ("deleted", "deleted")])
def test_stop_and_delete_work_from_every_moment_of_a_deployment(after: float, desired: str, end: str) -> None:
    world = World(wanted=2)
    world.deploy()
    world.run(seconds=after)
    world.give_up(desired)
    world.run(until=end, seconds=120)
    assert world.running == []


def test_a_deletion_does_not_wait_long_for_those_who_hold_on(world: World) -> None:
    world.in_flight = dict.fromkeys(world.running, 1)
    world.wish(desired="deleted")
    world.run(until="deleted", seconds=limits.DELETE_DEADLINE.total_seconds() + 2)


def test_a_start_right_after_a_stop_brings_new_instances(world: World) -> None:
    world.give_up("stopped")
    world.step()
    world.deploy(1)
    world.run(until="active", seconds=60)
    world.run(seconds=90)
    assert len(world.running) == 2
