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
from endpoints.planner.rollout import Aim
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
    aim = _aim(facts, world, at, answer)
    rollout.steer(facts, aim, world, at, answer)
    if facts.observed_generation != facts.generation:
        answer.endpoint["observed_generation"] = facts.generation
    _conclude(facts, world, aim.target, at, answer)
    return answer


def _aim(facts: EndpointFacts, world: seen.World, at: datetime, answer: Plan) -> Aim:
    """What should run: the deployment's revision once it may start instances, else what serves."""
    if facts.desired != Desired.RUNNING or facts.deployment is None:
        return Aim(facts.serving)
    revision = facts.deployment.revision
    advance = phases.Advance(facts, facts.deployment, world, at, answer)
    advance.go()
    if advance.failed:
        _note_failure(facts, answer)
        return _after_failure(facts, world, at, answer)
    loading = facts.deployment.phase(PhaseKind.LOADING)
    begun = loading.state != PhaseState.WAITING or "state" in answer.phases.get(PhaseKind.LOADING, {})
    return Aim(revision, begun=True) if begun or advance.done else Aim(facts.serving)


def _after_failure(facts: EndpointFacts, world: seen.World, at: datetime, answer: Plan) -> Aim:
    """What served before serves on. If that is the same revision, and it serves no more, all ends here."""
    deployment, serving = facts.deployment, facts.serving
    if deployment is None or serving is None or serving.id != deployment.revision.id:
        return Aim(serving)
    if any(one.state == InstanceState.READY for one in world.live):
        return Aim(serving)
    reason = str(answer.deployment["reason"] or "DeploymentFailed")
    message = str(answer.deployment["message"] or "See the phase that failed.")
    rollout.halt(reason, f"{message} Nothing more is started until you start or deploy.", at, answer)
    return Aim(serving, abandoned=True)


def _note_failure(facts: EndpointFacts, answer: Plan) -> None:
    rest = f"Revision {facts.serving.number} serves on." if facts.serving else "Nothing serves."
    said = seen.sentence(str(answer.deployment.get("message") or "See the phase that failed."))
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
            live=len(world.live),
            ready=len(serving),
            short=bool(answer.endpoint.get("notice", facts.notice)),
            lost=bool(recent) or any(one.state == InstanceState.UNREADY for one in world.live),
            waking=facts.status in (Status.IDLE, Status.SCALING),
        )
    )
    if status != facts.status:
        answer.endpoint |= {"status": status, "status_since": at}
        before, after = Status(facts.status).label, status.label
        answer.notes.append(Note("endpoint.status", f"{before} → {after}", before=before, after=after))
    if status == Status.DELETED:
        answer.endpoint["deleted_at"] = at
