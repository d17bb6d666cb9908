"""Carrying out a plan: rows first, guarded by the lease, then the world, one idempotent act at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from django.db import transaction

from endpoints import bell
from endpoints.facts import Loaded
from endpoints.models import Deployment, Endpoint, Event, Instance, Phase, Undecryptable
from endpoints.models.deployment import DeploymentState, InstanceState, PhaseState
from endpoints.models.event import Severity
from endpoints.planner import Apply, Note, Plan, Queue
from endpoints.runtimes.base import Rejected, Runtime, Unavailable
from endpoints.workloads import workload_of

log = logging.getLogger(__name__)

ROUTED = {"state", "address"}
LAST_LINES = 40


def write(endpoint: Endpoint, plan: Plan, *, at: datetime, guard: Callable[[], None]) -> None:
    """Write the plan's changes in one transaction. `guard` raises Lost when another run took over."""
    with transaction.atomic():
        guard()
        _instances(endpoint, plan)
        _deployment(endpoint, plan)
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


def _deployment(endpoint: Endpoint, plan: Plan) -> None:
    running = endpoint.deployments.filter(state=DeploymentState.RUNNING).first()
    if running is None:
        return
    for kind, fields in plan.phases.items():
        open_phase = Phase.objects.filter(
            deployment=running, kind=kind, state__in=(PhaseState.WAITING, PhaseState.RUNNING)
        )
        open_phase.update(**fields)
    if plan.deployment:
        fields = dict(plan.deployment)
        if fields["state"] == DeploymentState.FAILED:
            fields |= _why(running, fields)
        Deployment.objects.filter(pk=running.pk, state=DeploymentState.RUNNING).update(**fields)


def _why(running: Deployment, fields: dict[str, object]) -> dict[str, object]:
    """What a failed deployment says: the phase's own reason when a slow worker closed it."""
    if fields["reason"]:
        return {}
    failed = running.phases.filter(state=PhaseState.FAILED).first()
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


def act(loaded: Loaded, plan: Plan, runtime: Runtime, *, at: datetime) -> None:
    """Perform the plan's actions. What can't be done now is planned again at the next look."""
    for action in plan.actions:
        if isinstance(action, Queue):
            bell.send(action.task, action.deployment_id, queue="slow")
        else:
            _apply(loaded, action, runtime, at)
    if plan.deployment.get("state") == DeploymentState.FAILED:
        _keep_last_lines(loaded, runtime)


def _apply(loaded: Loaded, action: Apply, runtime: Runtime, at: datetime) -> None:
    revision = loaded.revisions[action.revision_id]
    try:
        runtime.apply(workload_of(loaded.endpoint, revision, action.replicas, action.retire))
    except Unavailable as problem:
        log.warning("%s: %s", loaded.endpoint, problem)
    except (Rejected, Undecryptable) as problem:
        _reject(loaded.endpoint, str(problem), at)


def _reject(endpoint: Endpoint, message: str, at: datetime) -> None:
    """The runtime will never do this: the deployment fails, or the endpoint halts until a person acts."""
    with transaction.atomic():
        running = endpoint.deployments.filter(state=DeploymentState.RUNNING).first()
        phase = running.phases.filter(state=PhaseState.RUNNING).first() if running else None
        if phase:
            phase.end(PhaseState.FAILED, at=at, reason="Rejected", message=message)
        else:
            Endpoint.objects.filter(pk=endpoint.pk, halted_at=None).update(
                halted_at=at, halted_reason="Rejected", halted_message=message
            )
            endpoint.record("endpoint.halted", at=at, message=message, reason="Rejected", severity=Severity.BAD)
        bell.ring_pages(endpoint.project_id, endpoint.pk, ("status", "timeline", "events"))


def _keep_last_lines(loaded: Loaded, runtime: Runtime) -> None:
    """Copy the end of the failed instance's log into the deployment, which outlives it."""
    failed = (
        Instance.objects.filter(endpoint=loaded.endpoint, state=InstanceState.FAILED).order_by("-ended_at").first()
    )
    if failed is None:
        return
    try:
        lines = runtime.logs(failed.name, after=-LAST_LINES, limit=LAST_LINES)
    except Unavailable:
        return
    newest = loaded.endpoint.deployments.first()
    if newest and lines:
        Deployment.objects.filter(pk=newest.pk).update(log_tail="\n".join(line.text for line in lines))
