"""Endpoints as the REST API shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db.models import Count, Q, QuerySet
from django.utils import timezone
from ninja import Schema
from pydantic import ConfigDict, Field, StrictInt, StrictStr

from endpoints.models import Deployment, Endpoint, Phase, Revision
from endpoints.models.deployment import InstanceState
from endpoints.models.scaled import USUAL_HOLD
from endpoints.pages import address_of, host_of


class PhaseOut(Schema):
    kind: str
    label: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None
    reason: str
    message: str
    bytes_done: int | None
    bytes_total: int | None
    log: str


class DeploymentOut(Schema):
    id: int
    revision: int
    state: str
    cause: str
    reason: str
    message: str
    started_at: datetime
    ended_at: datetime | None
    phases: list[PhaseOut]


class InstancesOut(Schema):
    wanted: int
    live: int
    ready: int
    min: int
    max: int


class ScalingOut(Schema):
    """The policy; the limits of the number are with the instances."""

    target_concurrency: int
    scale_up_threshold: int
    scale_down_delay: int
    warm_spare: int


class EmergencyOut(Schema):
    """So many instances are kept until then, whatever the load."""

    instances: int
    until: datetime


class MadeOfOut(Schema):
    """What the revision that serves is made of, or else the newest; `source` is short, `pinned` never moves."""

    revision: int
    method: str
    framework: str
    framework_version: str
    image: str
    source_kind: str
    source: str
    pinned: str


class EndpointOut(Schema):
    name: str
    project: str
    region: str
    status: str
    status_since: datetime
    desired: str
    reason: str
    message: str
    address: str
    host: str
    instances: InstancesOut
    scaling: ScalingOut
    emergency: EmergencyOut | None
    serving_revision: int | None
    made_of: MadeOfOut | None
    deployment: DeploymentOut | None
    created_at: datetime


class EndpointsOut(Schema):
    items: list[EndpointOut]
    total: int
    page: int
    pages: int


class EventOut(Schema):
    id: int
    at: datetime
    kind: str
    severity: str
    who: str
    instance: str
    reason: str
    message: str
    before: str
    after: str


class EventsOut(Schema):
    items: list[EventOut]
    next_cursor: int | None


class AdmissionOut(Schema):
    """The traffic rules; null is no limit."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None
    queue_limit: int
    queue_seconds: int
    wake_seconds: int
    origins: list[str]
    max_response_mb: int | None


class AdmissionIn(Schema):
    """Ranges are the verb's to judge; null takes a limit away."""

    model_config = ConfigDict(extra="forbid")
    requests_per_minute: StrictInt | None = None
    tokens_per_minute: StrictInt | None = None
    concurrent_requests: StrictInt | None = None
    queue_limit: StrictInt | None = None
    queue_seconds: StrictInt | None = None
    wake_seconds: StrictInt | None = None
    origins: list[StrictStr] = []
    max_response_mb: StrictInt | None = None


class ScaleIn(Schema):
    model_config = ConfigDict(extra="forbid")
    instances: StrictInt = Field(ge=0, le=100)


class EmergencyIn(Schema):
    """Without `instances`, as many as the policy allows; `minutes`: 15, 60 or 240."""

    model_config = ConfigDict(extra="forbid")
    instances: StrictInt | None = None
    minutes: StrictInt = USUAL_HOLD


class ScalingIn(Schema):
    """Ranges and how the parts must agree are the verb's to judge."""

    model_config = ConfigDict(extra="forbid")
    min_instances: StrictInt | None = None
    max_instances: StrictInt | None = None
    target_concurrency: StrictInt | None = None
    scale_up_threshold: StrictInt | None = None
    scale_down_delay: StrictInt | None = None
    warm_spare: StrictInt | None = None


def counted(endpoints: QuerySet[Endpoint]) -> QuerySet[Endpoint]:
    """With what `shown` reads, in one query."""
    live = Q(instances__ended_at=None)
    return endpoints.select_related("region", "project", "serving_revision").annotate(
        live_count=Count("instances", filter=live & Q(instances__isnull=False)),
        ready_count=Count("instances", filter=live & Q(instances__state=InstanceState.READY)),
    )


def shown(endpoints: Sequence[Endpoint]) -> list[EndpointOut]:
    """Rows of `counted` as they are answered; two queries more for all of them."""
    latest = _latest_deployments(endpoints)
    return [_endpoint(endpoint, latest.get(endpoint.pk)) for endpoint in endpoints]


def _latest_deployments(endpoints: Iterable[Endpoint]) -> dict[int, Deployment]:
    rows = Deployment.objects.filter(endpoint__in=[endpoint.pk for endpoint in endpoints])
    newest = rows.order_by("endpoint_id", "-id").distinct("endpoint_id")
    found = newest.select_related("revision").prefetch_related("phases")
    return {deployment.endpoint_id: deployment for deployment in found}


def _endpoint(endpoint: Endpoint, deployment: Deployment | None) -> EndpointOut:
    failed = deployment if deployment and deployment.state == "failed" else None
    return EndpointOut(
        name=endpoint.name,
        project=endpoint.project.slug,
        region=endpoint.region.slug,
        status=endpoint.status,
        status_since=endpoint.status_since,
        desired=endpoint.desired,
        reason=endpoint.halted_reason or (failed.reason if failed else ""),
        message=endpoint.halted_message or (failed.message if failed else ""),
        address=address_of(endpoint),
        host=host_of(endpoint),
        instances=_instances(endpoint),
        scaling=ScalingOut.from_orm(endpoint),
        emergency=_emergency(endpoint),
        serving_revision=endpoint.serving_revision.number if endpoint.serving_revision else None,
        made_of=_made_of(endpoint.serving_revision or (deployment.revision if deployment else None)),
        deployment=_deployment(deployment) if deployment else None,
        created_at=endpoint.created_at,
    )


def _made_of(revision: Revision | None) -> MadeOfOut | None:
    if revision is None:
        return None
    spec = revision.wish
    return MadeOfOut(
        revision=revision.number,
        method=spec.method,
        framework=spec.engine,
        framework_version=spec.framework_version,
        image=spec.container.image,
        source_kind=spec.source.kind,
        source=spec.source.named,
        pinned=str(revision.resolved.get("commit", "")),
    )


def _instances(endpoint: Endpoint) -> InstancesOut:
    return InstancesOut(
        wanted=endpoint.wanted,
        live=getattr(endpoint, "live_count", 0),
        ready=getattr(endpoint, "ready_count", 0),
        min=endpoint.min_instances,
        max=endpoint.max_instances,
    )


def _emergency(endpoint: Endpoint) -> EmergencyOut | None:
    held, until = endpoint.held(timezone.now()), endpoint.emergency_until
    return EmergencyOut(instances=held, until=until) if held and until else None


def _deployment(deployment: Deployment) -> DeploymentOut:
    return DeploymentOut(
        id=deployment.pk,
        revision=deployment.revision.number,
        state=deployment.state,
        cause=deployment.cause,
        reason=deployment.reason,
        message=deployment.message,
        started_at=deployment.started_at,
        ended_at=deployment.ended_at,
        phases=[_phase(phase) for phase in deployment.phases.all()],
    )


def _phase(phase: Phase) -> PhaseOut:
    return PhaseOut(
        kind=phase.kind,
        label=phase.get_kind_display(),
        state=phase.state,
        started_at=phase.started_at,
        ended_at=phase.ended_at,
        reason=phase.reason,
        message=phase.message,
        bytes_done=phase.bytes_done,
        bytes_total=phase.bytes_total,
        log=phase.log,
    )
