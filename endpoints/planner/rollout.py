"""Which instances should run, and how to get there: surge 1, unavailable 0, drain before stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from endpoints.models.event import Severity
from endpoints.planner import limits
from endpoints.planner.facts import (
    Apply,
    EndpointFacts,
    Failure,
    InstanceFacts,
    InstanceState,
    Note,
    PhaseKind,
    PhaseState,
    Plan,
    RevisionFacts,
)
from endpoints.planner.seen import BEFORE_READY, World
from endpoints.runtimes.base import Observed, Phase
from endpoints.status import Desired


@dataclass(frozen=True)
class Aim:
    """What should run. `begun`: the deployment under way may start instances (it is in its loading phase or
    later). `abandoned`: the deployment failed and nothing serves, so what is still starting goes too."""

    target: RevisionFacts | None
    begun: bool = False
    abandoned: bool = False


def steer(facts: EndpointFacts, aim: Aim, world: World, at: datetime, plan: Plan) -> None:
    """Decide starts, drains and retirements, and put the runtime's orders into the plan."""
    target = aim.target
    since = facts.restarting_since if aim.begun else None
    going = [one for one in world.live if one.state == InstanceState.DRAINING]
    staying = [one for one in world.live if one.state != InstanceState.DRAINING]
    current = [
        one
        for one in staying
        if target and one.revision_id == target.id and (since is None or one.started_at >= since)
    ]
    old = [one for one in staying if one not in current]
    drained = [] if aim.abandoned else _drains(facts, target, current, old)
    drained = staying if aim.abandoned else drained
    for one in drained:
        plan.instances.setdefault(one.name, {}).update(state=InstanceState.DRAINING, draining_at=at)
        said = f"Instance {one.name} takes no new requests."
        plan.notes.append(
            Note("instance.draining", said, instance=one.name, before=one.state, after=InstanceState.DRAINING)
        )
    missing = 0 if aim.abandoned else _missing(facts, aim, current, old)
    starts = _starts(facts, target, missing, world.failures, at, plan) if target else 0
    _notice(facts, missing - starts, plan)
    retire = [one for one in going if _drain_is_over(one, facts, at)]
    retire += [one for one in drained if one.ready_at is None]  # never served: nothing to wait for
    _order(target, world, starts, {one.name for one in retire}, plan)
    if drained or any(_waited(one, at) < limits.DRAIN_DEADLINE for one in going):
        plan.look_again(at + limits.CALM)  # longer drains are left to the sweep
    if starts:
        plan.look_again(at + limits.BRISK)
    for one in staying:
        if one.state in BEFORE_READY and one not in drained:
            plan.look_again(at + limits.pace(at - one.started_at))


def needs_room(facts: EndpointFacts, observed: Mapping[str, Observed]) -> bool:
    """Whether the plan may have to know what is free, which costs the runtime a look around."""
    target = facts.deployment.revision if facts.deployment else facts.serving
    if target is None or facts.desired != Desired.RUNNING or facts.halted:
        return False
    if facts.deployment:
        done = {phase.kind for phase in facts.deployment.phases if phase.state == PhaseState.DONE}
        if PhaseKind.VALIDATION in done and PhaseKind.ALLOCATION not in done:
            return True
    since = facts.restarting_since
    leaving = {one.name for one in facts.instances if one.state == InstanceState.DRAINING} | facts.ended
    staying = sum(
        seen.revision == target.number
        and seen.phase != Phase.EXITED
        and name not in leaving
        and not seen.leaving
        and (since is None or seen.started_at >= since)
        for name, seen in observed.items()
    )
    # One more: a silent instance may be given up in this very plan.
    silent = sum(one.state == InstanceState.UNREADY for one in facts.instances)
    return bool(target.model_path) and staying - silent < facts.wanted_now


def _drains(
    facts: EndpointFacts,
    target: RevisionFacts | None,
    current: Sequence[InstanceFacts],
    old: Sequence[InstanceFacts],
) -> list[InstanceFacts]:
    """Who goes. Of those that serve never so many that fewer than wanted are left."""
    if target is None or facts.desired != Desired.RUNNING:
        return [*current, *old]
    ready = sum(one.state == InstanceState.READY for one in [*current, *old])
    drained = []
    for one in sorted(old, key=lambda one: _worth(one, facts)):
        if one.state != InstanceState.READY:
            drained.append(one)
        elif ready > facts.wanted_now:
            drained.append(one)
            ready -= 1
    for one in sorted(current, key=lambda one: _worth(one, facts))[: max(0, len(current) - facts.wanted_now)]:
        # The surplus of the present revision goes once the old ones are not needed to make up the number.
        if one.state != InstanceState.READY or ready > facts.wanted_now:
            drained.append(one)
            ready -= one.state == InstanceState.READY
    return drained


def _worth(one: InstanceFacts, facts: EndpointFacts) -> tuple[bool, int, float]:
    """Who goes first: those not ready, then the emptiest, then the youngest."""
    carried = (facts.in_flight or {}).get(one.name, 0)
    return (one.state == InstanceState.READY, carried, -one.started_at.timestamp())


def _missing(
    facts: EndpointFacts, aim: Aim, current: Sequence[InstanceFacts], old: Sequence[InstanceFacts]
) -> int:
    """How many more should run than do, within the surge of a rollout."""
    target = aim.target
    if target is None or facts.desired != Desired.RUNNING or facts.halted or not target.model_path:
        return 0
    if facts.deployment and not aim.begun and target.id == facts.deployment.revision.id:
        return 0  # a start or restart of what served before: its phases come first
    missing = facts.wanted_now - len(current)
    if old:
        missing = min(missing, facts.wanted_now + limits.SURGE - len(current) - len(old))
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
    spread = max(0, facts.wanted_now - 1)  # all may fall once, as when the machine does, and that is no loop
    left = limits.CRASHES_WHILE_SERVING + spread - len(mine)
    if mine and facts.deployment is None:
        never = [one for one in mine if target.ours and one.exit_code in limits.NEVER_MENDS]
        if never or left <= 0:
            _halt(mine, never, at, plan)
            return 0
    if mine and at < (next_try := mine[-1].at + limits.back_off(len(mine) - spread)):
        plan.look_again(next_try)
        return 0
    return max(0, min(missing, left, facts.room.instances)) if facts.room else 0


def _notice(facts: EndpointFacts, short: int, plan: Plan) -> None:
    """Say at the endpoint what keeps it from having all it wants, and take that back when it is over."""
    shortage = facts.room.shortage if short and facts.room and facts.room.instances < 1 else ""
    if shortage and facts.deployment is None:
        if not facts.notice:
            plan.endpoint |= {"notice_reason": "Unschedulable", "notice": shortage}
            plan.notes.append(Note("endpoint.short", shortage, Severity.WARN, "Unschedulable"))
    elif facts.notice:
        plan.endpoint |= {"notice_reason": "", "notice": ""}


def _halt(mine: Sequence[Failure], never: Sequence[Failure], at: datetime, plan: Plan) -> None:
    """The crash budget is spent, or no new start can help: start nothing more until a person acts."""
    minutes = limits.CRASH_WINDOW.total_seconds() / 60
    said = f"{len(mine)} instances ended unasked within {minutes:.0f} minutes"
    reason = limits.NEVER_MENDS[never[-1].exit_code or 0] if never else "CrashLoop"
    said = "An instance ended in a way that no new start mends" if never else said
    message = (
        f"{said}; nothing more is started until you start, restart, scale or deploy. "
        f"The last: {(never or mine)[-1].message}"
    )
    halt(reason, message, at, plan)


def halt(reason: str, message: str, at: datetime, plan: Plan) -> None:
    plan.endpoint |= {"halted_at": at, "halted_reason": reason, "halted_message": message}
    plan.notes.append(Note("endpoint.halted", message, Severity.BAD, reason))


def _drain_is_over(one: InstanceFacts, facts: EndpointFacts, at: datetime) -> bool:
    """When it carries nothing, or at the deadline: a person who stops or deploys waits for a minute, nobody
    waits for what is only too many, so its longest answer may end."""
    if one.draining_at is None:
        return False
    waited = _waited(one, at)
    carries = (facts.in_flight or {}).get(one.name, 0)
    deadline = limits.DELETE_DEADLINE if facts.desired == Desired.DELETED else limits.DRAIN_DEADLINE
    if carries and _is_surplus(one, facts):
        deadline = limits.LONGEST_ANSWER
    if one.ready_at is None or waited >= deadline:
        return True
    return waited >= limits.DRAIN_GRACE and facts.in_flight is not None and not carries


def _is_surplus(one: InstanceFacts, facts: EndpointFacts) -> bool:
    """Nothing is wrong with it and nothing waits for its place: there are only too many."""
    served = facts.serving is not None and one.revision_id == facts.serving.id
    return served and facts.desired == Desired.RUNNING and facts.deployment is None


def _waited(one: InstanceFacts, at: datetime) -> timedelta:
    return at - (one.draining_at or at)


def _order(target: RevisionFacts | None, world: World, starts: int, retire: set[str], plan: Plan) -> None:
    """One Apply a revision that must change. Those whose end is under way neither count nor are told again."""
    revisions = {one.revision_id for one in world.live} | set(world.strays)
    for revision_id in sorted(revisions | ({target.id} if target and starts else set())):
        mine = [one.name for one in world.live if one.revision_id == revision_id and one.name not in world.leaving]
        asked = [name for name in mine if name in retire]
        fresh = starts if target and revision_id == target.id else 0
        leaving = (*sorted(asked), *world.strays.get(revision_id, ()))
        if fresh or leaving:
            plan.actions.append(Apply(revision_id, len(mine) - len(asked) + fresh, leaving))
