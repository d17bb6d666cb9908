"""Which instances should run, and how to get there: surge 1, unavailable 0, drain before stop."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from endpoints.models.event import Severity
from endpoints.planner import limits
from endpoints.planner.facts import (
    Apply,
    EndpointFacts,
    Failure,
    InstanceFacts,
    InstanceState,
    Note,
    Plan,
    RevisionFacts,
)
from endpoints.planner.seen import BEFORE_READY, World
from endpoints.status import Desired


def steer(facts: EndpointFacts, target: RevisionFacts | None, world: World, at: datetime, plan: Plan) -> None:
    """Decide starts, drains and retirements, and put the runtime's orders into the plan."""
    going = [one for one in world.live if one.state == InstanceState.DRAINING]
    staying = [one for one in world.live if one.state != InstanceState.DRAINING]
    current = [one for one in staying if target and one.revision_id == target.id and not _outdated(one, facts)]
    old = [one for one in staying if one not in current]
    drained = _drains(facts, target, current, old, plan)
    for one in drained:
        plan.instances.setdefault(one.name, {}).update(state=InstanceState.DRAINING, draining_at=at)
        plan.notes.append(
            Note(
                "instance.draining",
                f"Instance {one.name} takes no new requests.",
                instance=one.name,
                before=one.state,
                after=InstanceState.DRAINING,
            )
        )
    missing = _missing(facts, target, current, old)
    starts = _starts(facts, target, missing, world.failures, at, plan) if target else 0
    _notice(facts, missing - starts, plan)
    retire = [one for one in going if _drain_is_over(one, facts, at)]
    retire += [one for one in drained if one.ready_at is None]  # never served: nothing to wait for
    _order(target, world, starts, {one.name for one in retire}, plan)
    if going or drained:
        plan.look_again(at + limits.CALM)
    if starts or any(one.state in BEFORE_READY for one in staying):
        plan.look_again(at + limits.BUSY)


def _outdated(one: InstanceFacts, facts: EndpointFacts) -> bool:
    return facts.restarted_at is not None and one.started_at < facts.restarted_at


def _drains(
    facts: EndpointFacts,
    target: RevisionFacts | None,
    current: Sequence[InstanceFacts],
    old: Sequence[InstanceFacts],
    plan: Plan,
) -> list[InstanceFacts]:
    if target is None or facts.desired != Desired.RUNNING:
        return [*current, *old]
    ready = sum(one.state == InstanceState.READY for one in [*current, *old])
    drained = []
    for one in sorted(old, key=lambda one: _worth(one, facts)):
        if one.state != InstanceState.READY:
            drained.append(one)
        elif ready > max(1, facts.wanted) or (ready > facts.wanted and facts.deployment is None):
            drained.append(one)
            ready -= 1
    surplus = max(0, len(current) - facts.wanted)
    return drained + sorted(current, key=lambda one: _worth(one, facts))[:surplus]


def _worth(one: InstanceFacts, facts: EndpointFacts) -> tuple[bool, int, float]:
    """Who goes first: those not ready, then the emptiest, then the youngest."""
    carried = (facts.in_flight or {}).get(one.name, 0)
    return (one.state == InstanceState.READY, carried, -one.started_at.timestamp())


def _missing(
    facts: EndpointFacts,
    target: RevisionFacts | None,
    current: Sequence[InstanceFacts],
    old: Sequence[InstanceFacts],
) -> int:
    """How many more should run than do, within the surge of a rollout."""
    if target is None or facts.desired != Desired.RUNNING or facts.halted or not target.model_path:
        return 0
    missing = facts.wanted - len(current)
    if old:
        missing = min(missing, facts.wanted + limits.SURGE - len(current) - len(old))
    return max(0, missing)


def _starts(
    facts: EndpointFacts,
    target: RevisionFacts,
    missing: int,
    failures: Sequence[Failure],
    at: datetime,
    plan: Plan,
) -> int:
    """How many to start now: what is missing, within room, crash budget and back-off."""
    if missing == 0:
        return 0
    mine = [one for one in failures if one.revision_id == target.id]
    if mine and facts.deployment is None and len(mine) >= limits.CRASHES_WHILE_SERVING:
        _halt(mine, at, plan)
        return 0
    if mine and at < (next_try := mine[-1].at + limits.back_off(len(mine))):
        plan.look_again(next_try)
        return 0
    return min(missing, facts.room.instances) if facts.room else 0


def _notice(facts: EndpointFacts, short: int, plan: Plan) -> None:
    """Say at the endpoint what keeps it from having all it wants, and take that back when it is over."""
    shortage = facts.room.shortage if short and facts.room and facts.room.instances < 1 else ""
    if shortage and facts.deployment is None:
        if not facts.notice:
            plan.endpoint |= {"notice_reason": "Unschedulable", "notice": shortage}
            plan.notes.append(Note("endpoint.short", shortage, Severity.WARN, "Unschedulable"))
    elif facts.notice:
        plan.endpoint |= {"notice_reason": "", "notice": ""}


def _halt(mine: Sequence[Failure], at: datetime, plan: Plan) -> None:
    """The crash budget is spent: start nothing more until a person acts."""
    minutes = limits.CRASH_WINDOW.total_seconds() / 60
    message = (
        f"{len(mine)} instances ended unasked within {minutes:.0f} minutes; nothing more is started "
        f"until you start, restart, scale or deploy. The last: {mine[-1].message}"
    )
    plan.endpoint |= {"halted_at": at, "halted_reason": "CrashLoop", "halted_message": message}
    plan.notes.append(Note("endpoint.halted", message, Severity.BAD, "CrashLoop"))


def _drain_is_over(one: InstanceFacts, facts: EndpointFacts, at: datetime) -> bool:
    if one.draining_at is None:
        return False
    waited = at - one.draining_at
    deadline = limits.DELETE_DEADLINE if facts.desired == Desired.DELETED else limits.DRAIN_DEADLINE
    if one.ready_at is None or waited >= deadline:
        return True
    return waited >= limits.DRAIN_GRACE and facts.in_flight is not None and not facts.in_flight.get(one.name)


def _order(target: RevisionFacts | None, world: World, starts: int, retire: set[str], plan: Plan) -> None:
    """One Apply a revision that must change."""
    revisions = {one.revision_id for one in world.live} | set(world.strays)
    for revision_id in sorted(revisions | ({target.id} if target and starts else set())):
        mine = [one.name for one in world.live if one.revision_id == revision_id]
        asked = [name for name in mine if name in retire]
        fresh = starts if target and revision_id == target.id else 0
        leaving = (*sorted(asked), *world.strays.get(revision_id, ()))
        if fresh or leaving:
            plan.actions.append(Apply(revision_id, len(mine) - len(asked) + fresh, leaving))
