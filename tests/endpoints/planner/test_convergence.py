"""Whatever happens, in whatever order: it converges, and then it rests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoints.planner import limits
from tests.endpoints.planner.world import World


def _deploy(world: World) -> None:
    if world.facts.deployment is None and world.facts.desired == "running":
        world.deploy(max(world.revisions) + 1)


def _restart(world: World) -> None:
    if world.facts.deployment is None and world.facts.desired == "running" and world.facts.serving:
        world.deploy(world.facts.serving.number, restart=True)


def _start(world: World) -> None:
    if world.facts.desired == "stopped":
        world.deploy(world.facts.serving.number if world.facts.serving else max(world.revisions))


def _cancel(world: World) -> None:
    if world.facts.deployment:
        world.give_up()


def _kill(world: World) -> None:
    for name in world.running[:1]:
        world.kill(name)


def _vanish(world: World) -> None:
    for name in world.running[-1:]:
        del world.runs[name]


def _silence(world: World) -> None:
    for name in sorted(world.healthy & set(world.running))[:1]:
        world.silent.add(name)
        world.healthy.discard(name)


def _lose_plan(world: World) -> None:
    """The run is killed before it writes."""
    world.pass_time(0.5)
    world.plan()


def _lose_actions(world: World) -> None:
    """The run is killed between writing and acting."""
    world.pass_time(0.5)
    planned = world.plan()
    planned.actions.clear()
    world.apply(planned)


def _busy(world: World) -> None:
    world.in_flight = dict.fromkeys(world.running, 2)


def _valkey_away(world: World) -> None:
    world.in_flight = None


def _valkey_back(world: World) -> None:
    world.in_flight = {}


EVENTS: dict[str, Callable[[World], object]] = {
    "deploy": _deploy,
    "restart": _restart,
    "start": _start,
    "stop": lambda world: world.give_up("stopped"),
    "cancel": _cancel,
    "scale up": lambda world: world.wish(wanted=4),
    "scale down": lambda world: world.wish(wanted=1),
    "scale to zero": lambda world: world.wish(wanted=0),
    "kill": _kill,
    "vanish": _vanish,
    "silence": _silence,
    "killed before writing": _lose_plan,
    "killed before acting": _lose_actions,
    "busy": _busy,
    "valkey away": _valkey_away,
    "valkey back": _valkey_back,
    "a moment": lambda world: world.step(0.5),
    "a while": lambda world: world.run(seconds=15),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=12))
def test_any_order_of_events_ends_as_wanted(events: list[str]) -> None:
    world = World(wanted=2)
    world.deploy()
    for event in events:
        EVENTS[event](world)
        world.step()
    world.in_flight = {}
    world.run(seconds=400, step=1)
    _as_wanted(world)
    _rests(world)


@pytest.mark.parametrize("moment", [*range(12)])
@pytest.mark.parametrize("killed", [_lose_plan, _lose_actions])
def test_a_run_killed_at_any_moment_of_a_deployment_leaves_no_double(
    moment: int, killed: Callable[[World], None]
) -> None:
    world = World(wanted=2)
    world.deploy()
    world.run(seconds=moment * 0.5)
    killed(world)
    world.run(until="active", seconds=60)
    assert world.starts == 2
    _rests(world)


@pytest.mark.parametrize("twice", [*range(12)])
def test_planning_again_after_applying_changes_nothing(twice: int) -> None:
    world = World(wanted=2)
    world.deploy()
    world.run(seconds=twice * 0.5)
    world.step()
    again = world.plan()
    # What was started now shows, and is written down; nothing is asked for a second time.
    assert not again.actions
    world.apply(again)
    third = world.plan()
    assert third.is_empty


def _as_wanted(world: World) -> None:
    facts, running = world.facts, world.running
    assert facts.deployment is None
    if facts.desired == "stopped":
        assert (facts.status, running) == ("stopped", [])
    elif facts.serving is None or facts.halted:
        assert facts.status in ("failed", "degraded")
        assert len(running) <= facts.wanted
    elif facts.wanted == 0:
        assert (facts.status, running) == ("idle", [])
    else:
        assert facts.status == "active"
        assert sorted(world.rows("ready")) == sorted(running)
        assert len(running) == facts.wanted
        assert {one.revision_id for one in facts.instances} == {facts.serving.id}


def _rests(world: World) -> None:
    for _ in range(3):
        assert world.step(limits.CALM.total_seconds()).is_empty
