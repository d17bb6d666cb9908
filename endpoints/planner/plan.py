"""The whole plan: look, advance the deployment, steer the instances, say the status."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from endpoints.models.event import Severity
from endpoints.planner import phases, rollout, seen
from endpoints.planner.facts import (
    DeploymentState,
    EndpointFacts,
    InstanceState,
    Note,
    PhaseKind,
    PhaseState,
    Plan,
    Probe,
    RevisionFacts,
)
from endpoints.runtimes.base import Observed
from endpoints.status import Desired, Seen, Status, status_of


def plan(
    facts: EndpointFacts, observed: Mapping[str, Observed], probes: Mapping[str, Probe], at: datetime
) -> Plan:
    """What to write, what to do and when to look again. Pure: the same arguments give the same plan.

    `observed` is everything the runtime knows of this owner; `probes` holds what those instances answered
    that were asked. Planning twice with the outcome of the first plan applied changes nothing more.
    """
    answer = Plan()
    world = seen.look(facts, observed, probes, at, answer)
    target = _target(facts, world, at, answer)
    rollout.steer(facts, target, world, at, answer)
    if facts.observed_generation != facts.generation:
        answer.endpoint["observed_generation"] = facts.generation
    _conclude(facts, world, target, at, answer)
    return answer


def _target(facts: EndpointFacts, world: seen.World, at: datetime, answer: Plan) -> RevisionFacts | None:
    """The revision whose instances should run: of the deployment once it may start some, else what serves."""
    if facts.desired != Desired.RUNNING or facts.deployment is None:
        return facts.serving
    advance = phases.Advance(facts, facts.deployment, world, at, answer)
    advance.go()
    if advance.failed:
        _note_failure(facts, answer)
        return facts.serving
    loading = facts.deployment.phase(PhaseKind.LOADING)
    begun = loading.state != PhaseState.WAITING or PhaseKind.LOADING in answer.phases
    return facts.deployment.revision if begun or advance.done else facts.serving


def _note_failure(facts: EndpointFacts, answer: Plan) -> None:
    rest = f"Revision {facts.serving.number} serves on." if facts.serving else "Nothing serves."
    said = answer.deployment.get("message") or "See the phase that failed."
    answer.notes.append(
        Note("deployment.failed", f"{said} {rest}", Severity.BAD, str(answer.deployment.get("reason", "")))
    )


def _conclude(
    facts: EndpointFacts, world: seen.World, target: RevisionFacts | None, at: datetime, answer: Plan
) -> None:
    """Compute the status, write it if it changed, and close a deletion."""
    drained = {name for name, change in answer.instances.items() if change.get("state") == InstanceState.DRAINING}
    serving = [one for one in world.live if one.state == InstanceState.READY and one.name not in drained]
    state = answer.deployment.get("state")
    recent = [one for one in world.failures if target and one.revision_id == target.id]
    status = status_of(
        Seen(
            desired=facts.desired,
            wanted=facts.wanted,
            deploying=facts.deployment is not None and state is None,
            served=facts.serving is not None or state == DeploymentState.SUCCEEDED,
            halted=facts.halted or "halted_at" in answer.endpoint,
            last_failed=state == DeploymentState.FAILED if state else facts.last_failed,
            live=len(world.live),
            ready=len(serving),
            short=bool(answer.endpoint.get("notice", facts.notice)),
            lost=bool(recent) or any(one.state == InstanceState.UNREADY for one in world.live),
        )
    )
    if status != facts.status:
        answer.endpoint |= {"status": status, "status_since": at}
        before, after = Status(facts.status).label, status.label
        answer.notes.append(Note("endpoint.status", f"{before} → {after}", before=before, after=after))
    if status == Status.DELETED:
        answer.endpoint["deleted_at"] = at
