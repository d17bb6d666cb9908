"""Carrying out a plan: rows first, guarded by the lease, then the world, one idempotent act at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import F

from endpoints import bell
from endpoints.learning import RAN_OUT, note_ends
from endpoints.lease import Outdated
from endpoints.models import Deployment, Endpoint, Event, Instance, Phase, Revision, Undecryptable
from endpoints.models.deployment import DeploymentState, InstanceState, PhaseState
from endpoints.models.event import Severity
from endpoints.planner import Apply, EndpointFacts, Note, Plan, Queue
from endpoints.runtimes.base import Rejected, Runtime, Unavailable, Unprepared
from endpoints.workloads import workload_of

log = logging.getLogger(__name__)

ROUTED = {"state", "address"}
LAST_LINES = 40
REBUILD_EXPIRES = 4.0  # seconds: each look that still lacks it asks again


def write(
    known: EndpointFacts, endpoint: Endpoint, plan: Plan, *, at: datetime, guard: Callable[[], None]
) -> None:
    """Write the plan's changes in one transaction. `guard` raises Lost when another run took over, or Outdated
    when the wish changed: then nothing is written."""
    with transaction.atomic():
        guard()
        _instances(endpoint, plan)
        if known.deployment:
            _deployment(known.deployment.id, plan)
        if plan.endpoint:
            Endpoint.objects.filter(pk=endpoint.pk).update(**plan.endpoint)
        Event.objects.bulk_create(_event(endpoint, note, at) for note in plan.notes)
        bell.ring_pages(endpoint.project_id, endpoint.pk, _fragments(plan))
        if _routes_changed(plan):
            bell.ring_gateway()


def _instances(endpoint: Endpoint, plan: Plan) -> None:
    for name, fields in plan.new_instances.items():
        merged = {**fields, **plan.instances.get(name, {})}
        Instance.objects.get_or_create(name=name, defaults={"endpoint": endpoint, **merged})
    for name, fields in plan.instances.items():
        if name not in plan.new_instances:
            Instance.objects.live().filter(name=name, endpoint=endpoint).update(**fields)
    if short := [name for name, fields in plan.instances.items() if fields.get("reason") in RAN_OUT]:
        note_ends(endpoint, short)


def _deployment(deployment_id: int, plan: Plan) -> None:
    for kind, fields in plan.phases.items():
        open_phase = Phase.objects.filter(
            deployment=deployment_id, kind=kind, state__in=(PhaseState.WAITING, PhaseState.RUNNING)
        )
        if not open_phase.update(**fields) and "state" in fields:
            raise Outdated(f"a slow worker closed {kind} meanwhile")
    if plan.deployment:
        running = Deployment.objects.filter(pk=deployment_id, state=DeploymentState.RUNNING)
        fields = dict(plan.deployment)
        if fields["state"] == DeploymentState.FAILED and not fields["reason"]:
            fields |= _why(deployment_id)
        if not running.update(**fields):
            raise Outdated("the deployment was ended meanwhile")


def _why(deployment_id: int) -> dict[str, object]:
    """What a failed deployment says when a slow worker closed the phase: the phase's own reason."""
    failed = Phase.objects.filter(deployment=deployment_id, state=PhaseState.FAILED).first()
    return {"reason": failed.reason, "message": failed.message} if failed else {}


def _event(endpoint: Endpoint, note: Note, at: datetime) -> Event:
    return Event(
        project_id=endpoint.project_id,
        endpoint=endpoint,
        at=at,
        kind=note.kind,
        message=note.message,
        severity=note.severity,
        reason=note.reason,
        instance=note.instance,
        before=note.before,
        after=note.after,
    )


def _fragments(plan: Plan) -> Sequence[str]:
    touched = {
        "status": plan.endpoint or plan.deployment,
        "actions": plan.endpoint or plan.deployment,
        "timeline": plan.phases or plan.deployment,
        "instances": plan.instances or plan.new_instances,
        "events": plan.notes,
    }
    return [name for name, changed in touched.items() if changed]


def _routes_changed(plan: Plan) -> bool:
    return bool(plan.endpoint or any(ROUTED & fields.keys() for fields in plan.instances.values()))


def act(endpoint: Endpoint, plan: Plan, runtime: Runtime, *, at: datetime) -> None:
    """Perform the plan's actions. What can't be done now is planned again at the next look."""
    for action in plan.actions:
        if isinstance(action, Queue):
            bell.send(action.task, action.deployment_id, queue="slow")
        else:
            _apply(endpoint, action, runtime, at)


def _apply(endpoint: Endpoint, action: Apply, runtime: Runtime, at: datetime) -> None:
    revision = Revision.objects.select_related("instance_type").get(pk=action.revision_id)
    try:
        runtime.apply(workload_of(endpoint, revision, action.replicas, action.retire, fetches=runtime.fetches))
    except Unprepared as problem:
        log.warning("%s: %s", endpoint, problem)
        bell.send("endpoints.rebuild", revision.pk, queue="slow", expires=REBUILD_EXPIRES)
    except Unavailable as problem:
        log.warning("%s: %s", endpoint, problem)
    except (Rejected, Undecryptable) as problem:
        reject(endpoint, str(problem), at)


@transaction.atomic
def reject(endpoint: Endpoint, message: str, at: datetime) -> None:
    """The runtime will never do this: the deployment fails, or the endpoint halts until a person acts."""
    phase = Phase.objects.filter(
        deployment__endpoint=endpoint, deployment__state=DeploymentState.RUNNING, state=PhaseState.RUNNING
    ).first()
    if phase:
        if phase.end(PhaseState.FAILED, at=at, reason="Rejected", message=message):
            _record(endpoint, "phase.failed", f"{phase.get_kind_display()}: {message}", at, after=phase.kind)
    elif Endpoint.objects.filter(pk=endpoint.pk, halted_at=None).update(
        halted_at=at, halted_reason="Rejected", halted_message=message
    ):
        _record(endpoint, "endpoint.halted", message, at)
    bell.ring_pages(endpoint.project_id, endpoint.pk, ("status", "timeline", "events"))


def _record(endpoint: Endpoint, kind: str, message: str, at: datetime, after: str = "") -> None:
    endpoint.record(kind, at=at, message=message, reason="Rejected", severity=Severity.BAD, after=after)


def last_words(endpoint: Endpoint, plan: Plan, runtime: Runtime) -> None:
    """Put the end of the log of the instance that failed a deployment into the plan: it outlives the instance."""
    if plan.deployment.get("state") != DeploymentState.FAILED:
        return
    ended = [name for name, fields in plan.instances.items() if fields.get("state") == InstanceState.FAILED]
    since = endpoint.deployments.filter(state=DeploymentState.RUNNING).values("revision", "started_at").first()
    if not ended and since:
        mine = endpoint.instances.filter(revision=since["revision"], started_at__gte=since["started_at"])
        # The last that failed; where none did (a timeout), one that still runs.
        ended = list(mine.order_by(F("ended_at").desc(nulls_last=True)).values_list("name", flat=True)[:1])
    if not ended:
        return
    try:
        lines = runtime.logs(ended[-1], after=-LAST_LINES, limit=LAST_LINES)
    except Unavailable as problem:
        log.warning("%s: %s", endpoint, problem)
        return
    plan.deployment["log_tail"] = "\n".join(line.text for line in lines)
