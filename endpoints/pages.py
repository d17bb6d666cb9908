"""What the endpoint pages show: rows, phases, snippets, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Count, Q, QuerySet

from endpoints.models import Deployment, Endpoint, Instance, Phase, Revision
from endpoints.models.deployment import DeploymentState, InstanceState, PhaseState
from endpoints.spec import Framework, Method, SourceKind, Spec
from endpoints.status import Status
from endpoints.templatetags.formats import duration

BUSY = {Status.DEPLOYING, Status.UPDATING, Status.SCALING, Status.STOPPING, Status.DELETING}
TONES = {
    InstanceState.STARTING: "idle",
    InstanceState.LOADING: "idle",
    InstanceState.READY: "ok",
    InstanceState.UNREADY: "warn",
    InstanceState.DRAINING: "idle",
    InstanceState.STOPPED: "idle",
    InstanceState.FAILED: "bad",
}
STEP_LINES = 60  # of what a slow step said, on the page; the API has all that is kept
PHASE_LOOKS = {
    PhaseState.WAITING: "waiting",
    PhaseState.RUNNING: "current",
    PhaseState.DONE: "done",
    PhaseState.FAILED: "failed",
    PhaseState.CANCELLED: "skipped",
}
NOTHING_RUNS = "Nothing runs and no compute is billed. The next request wakes it."
SORTS = {"name", "-name", "status", "-status", "created_at", "-created_at"}


def listing(
    endpoints: QuerySet[Endpoint], *, query: str = "", status: str = "", sort: str = ""
) -> QuerySet[Endpoint]:
    """Endpoints as the list shows them: filtered, sorted, with how many instances are ready."""
    found = endpoints.select_related("region").annotate(
        ready=Count(
            "instances",
            distinct=True,
            filter=Q(instances__ended_at=None, instances__state=InstanceState.READY),
        )
    )
    if query:
        found = found.filter(
            Q(name__icontains=query) | Q(revisions__spec__source__model__icontains=query)
        ).distinct()
    if status in Status.values:
        found = found.filter(status=status)
    return found.order_by(sort if sort in SORTS else "name", "pk")


def newest_revisions(endpoints: Iterable[Endpoint]) -> dict[int, Revision]:
    """The newest revision of each, in one query."""
    rows = Revision.objects.filter(endpoint__in=list(endpoints)).select_related("instance_type")
    return {row.endpoint_id: row for row in rows.order_by("endpoint_id", "-number").distinct("endpoint_id")}


def address_of(endpoint: Endpoint) -> str:
    """The endpoint's base URL, as a client on any machine that reaches the gateway can use it."""
    return f"{settings.GATEWAY_URL}/e/{endpoint.name}/v1"


def host_of(endpoint: Endpoint) -> str:
    """The endpoint's own host name, for clients that resolve it."""
    scheme, _, place = settings.GATEWAY_URL.partition("://")
    _, colon, port = place.partition(":")
    return f"{scheme}://{endpoint.name}.{endpoint.region.slug}.{settings.GATEWAY_DOMAIN}{colon}{port}/v1"


def model_name(spec: Spec) -> str:
    return spec.source.named or spec.container.image


@dataclass(frozen=True)
class Made:
    """What a revision is made of, in words; `pinned` is the commit or state it was made at, "" where none is."""

    method: str
    framework: str
    kind: str
    source: str
    pinned: str


def made_of(revision: Revision) -> Made:
    spec = revision.wish
    registry = spec.source.kind == SourceKind.REGISTRY
    return Made(
        method=Method(spec.method).label,
        framework=f"{Framework(spec.engine).label} {spec.framework_version}".strip(),
        kind=SourceKind(spec.source.kind).label,
        source=spec.source.named,
        pinned="" if registry else str(revision.resolved.get("commit", "")),
    )


def phase_rows(deployment: Deployment, at: datetime) -> list[dict[str, Any]]:
    """The six phases as the timeline piece wants them."""
    return [_phase(phase, deployment, at) for phase in deployment.phases.all()]


def _phase(phase: Phase, deployment: Deployment, at: datetime) -> dict[str, Any]:
    ended = phase.ended_at or (at if phase.state == PhaseState.RUNNING else None)
    seconds = (ended - phase.started_at).total_seconds() if ended and phase.started_at else None
    failed = phase.state == PhaseState.FAILED
    looks = PHASE_LOOKS[PhaseState(phase.state)]
    if phase.state == PhaseState.WAITING and deployment.finished:
        looks = "skipped"
    return {
        "label": phase.get_kind_display(),
        "state": looks,
        "started_at": phase.started_at,
        "ended_at": phase.ended_at,
        "seconds": seconds,
        "message": phase.message,
        "reason": phase.reason,
        "bytes_done": phase.bytes_done,
        "bytes_total": phase.bytes_total,
        "seconds_left": _seconds_left(phase, seconds),
        "steps": phase.log.splitlines()[-STEP_LINES:],
        "lines": deployment.log_tail.splitlines() if failed else None,
    }


def _seconds_left(phase: Phase, seconds: float | None) -> float | None:
    done, total = phase.bytes_done, phase.bytes_total
    if phase.state != PhaseState.RUNNING or not done or not total or not seconds:
        return None
    return (total - done) * seconds / done


def instance_rows(endpoint: Endpoint, *, most: int = 30) -> list[Instance]:
    """Live instances, then the newest ended ones."""
    live = list(endpoint.instances.live().select_related("revision").order_by("started_at"))
    ended = endpoint.instances.exclude(ended_at=None).select_related("revision").order_by("-ended_at")
    rows = live + list(ended[: max(0, most - len(live))])
    for row in rows:
        row.tone = TONES[InstanceState(row.state)]  # type: ignore[attr-defined]
    return rows


@dataclass(frozen=True)
class Problem:
    """Something about the whole endpoint that a person must know."""

    tone: str
    title: str
    text: str
    lines: Sequence[str] = ()


def problems(endpoint: Endpoint, newest: Deployment | None) -> list[Problem]:
    """Why it is not as wanted: most serious first."""
    found = []
    if endpoint.halted_at:
        found.append(Problem("bad", "Nothing more is started", endpoint.halted_message))
    if newest and newest.state == DeploymentState.FAILED:
        served = endpoint.serving_revision
        rest = f" Revision {served.number} serves on." if served and endpoint.status != Status.FAILED else ""
        title = f"Revision {newest.revision.number} could not be deployed"
        text = (newest.message or "See the phase that failed.") + rest
        found.append(Problem("bad", title, text, newest.log_tail.splitlines()))
    if (region := endpoint.region).enabled and region.problem and endpoint.status != Status.STOPPED:
        said = f"{region.problem.rstrip('.')}. What runs there runs on; what is asked for waits until it answers."
        found.append(Problem("warn", f"The region “{region.name}” can't be reached", said))
    if endpoint.notice:
        found.append(Problem("warn", "Fewer instances than wanted", endpoint.notice))
    elif endpoint.status == Status.IDLE:
        found.append(Problem("idle", "Scaled to zero", f"{NOTHING_RUNS} {_held(endpoint)}"))
    elif endpoint.status == Status.SCALING and endpoint.wanted and not _serves(endpoint):
        found.append(Problem("idle", "Waking up", f"The first instance is on its way. {_held(endpoint)}"))
    return found


def _held(endpoint: Endpoint) -> str:
    longest = duration(endpoint.rules.wake_seconds)
    return f"Requests are held until an instance answers, each for {longest} at most."


def _serves(endpoint: Endpoint) -> bool:
    return endpoint.instances.live().filter(state=InstanceState.READY).exists()
