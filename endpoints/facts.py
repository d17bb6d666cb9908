"""Loading the planner's facts, for one endpoint or for all, in a constant number of queries."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis
from django.db.models import Q

from endpoints import bell
from endpoints.autoscale.hearing import Heard, is_whole
from endpoints.capacity import Capacity
from endpoints.models import Deployment, Endpoint, Instance, Phase, Revision
from endpoints.models.catalogue import RuntimeKind
from endpoints.models.deployment import DeploymentState, InstanceState, PhaseKind
from endpoints.planner import (
    DeploymentFacts,
    EndpointFacts,
    Failure,
    InstanceFacts,
    PhaseFacts,
    RevisionFacts,
    Room,
)
from endpoints.planner.limits import CRASH_WINDOW
from endpoints.runtimes.base import Observed
from endpoints.spec import GIB, MODEL_SERVERS, ContainerSpec, Framework, Method

log = logging.getLogger(__name__)

GATEWAYS = "tir:gateway:*"
HEARD = "tir:gateways-heard"  # by the scaler, when each was heard last: {source: seconds since 1970}
MACHINE = tuple(f"instance_type__{name}" for name in ("vcpus", "memory_bytes", "gpu_count", "gpu", "slug"))
WISH = ("spec__method", "spec__framework", "spec__container", "endpoint__region__runtime")
REVISION = ("pk", "endpoint_id", "number", "model_path", "resolved__size", *MACHINE, *WISH)
TIMES = ("started_at", "ready_at", "draining_at", "unready_at")
INSTANCE = ("endpoint_id", "name", "revision_id", "state", *TIMES, "probe_failures", "address")
Revisions = Mapping[int, RevisionFacts]
Grouped = Mapping[int, list[Any]]


@dataclass(frozen=True)
class Loaded:
    """An endpoint with its facts."""

    endpoint: Endpoint
    facts: EndpointFacts


@dataclass(frozen=True)
class Stored:
    """What the database holds of some endpoints, by endpoint where not said otherwise."""

    revisions: Revisions  # by id: those that serve, are deployed, or have an instance
    numbers: Mapping[int, Mapping[int, int]]  # number -> id
    deployments: Mapping[int, Deployment]
    phases: Grouped  # by deployment
    live: Grouped
    crashed: Grouped
    ended: frozenset[str]


def load(
    endpoints: Iterable[Endpoint],
    observed: Mapping[str, Observed],
    at: datetime,
    *,
    in_flight: Mapping[str, int] | None = None,
) -> list[Loaded]:
    """The facts of these endpoints, without the room, which only a runtime can tell.

    Four queries; one more each while something deploys, while the runtime shows an instance that has no open
    row, and while it shows one of a revision that neither serves nor has an open row.
    """
    rows = list(endpoints)
    stored = _stored(rows, observed, at)
    return [Loaded(row, _facts(row, stored, in_flight)) for row in rows]


def _stored(rows: Sequence[Endpoint], observed: Mapping[str, Observed], at: datetime) -> Stored:
    ids = [row.pk for row in rows]
    live: Grouped = defaultdict(list)
    crashed: Grouped = defaultdict(list)
    names = set()
    for endpoint_id, *columns in (
        Instance.objects.live().filter(endpoint__in=ids).order_by("id").values_list(*INSTANCE)
    ):
        live[endpoint_id].append(InstanceFacts(*columns))
        names.add(columns[0])
    recent = Instance.objects.filter(endpoint__in=ids, state=InstanceState.FAILED, ended_at__gt=at - CRASH_WINDOW)
    columns = ("endpoint_id", "ended_at", "revision_id", "exit_code", "message")
    for endpoint_id, *values in recent.order_by("ended_at").values_list(*columns):
        crashed[endpoint_id].append(Failure(*values))
    deployments = {
        one.endpoint_id: one for one in Deployment.objects.filter(endpoint__in=ids, state=DeploymentState.RUNNING)
    }
    revisions, numbers = _revisions(rows, deployments, live, observed)
    others = [name for name in observed if name not in names]
    ended = Instance.objects.filter(name__in=others).values_list("name", flat=True) if others else ()
    return Stored(revisions, numbers, deployments, _phases(deployments), live, crashed, frozenset(ended))


def _phases(deployments: Mapping[int, Deployment]) -> Grouped:
    phases: Grouped = defaultdict(list)
    if deployments:
        for one in Phase.objects.filter(deployment__in=deployments.values()).order_by("position"):
            phases[one.deployment_id].append(
                PhaseFacts(
                    one.kind,
                    one.state,
                    one.started_at,
                    one.deadline,
                    one.lease_until,
                    one.ended_at,
                    one.message,
                    one.reason,
                    one.bytes_done,
                )
            )
    return phases


def _revisions(
    rows: Sequence[Endpoint],
    deployments: Mapping[int, Deployment],
    live: Grouped,
    observed: Mapping[str, Observed],
) -> tuple[Revisions, Mapping[int, Mapping[int, int]]]:
    """The revisions that matter now; every other row of them stays in the database, specs and all."""
    needed = {row.serving_revision_id for row in rows if row.serving_revision_id}
    needed |= {one.revision_id for one in deployments.values()}
    needed |= {one.revision_id for each in live.values() for one in each}
    found: dict[int, RevisionFacts] = {}
    numbers: dict[int, dict[int, int]] = defaultdict(dict)
    for pk, endpoint_id, number, path, size, vcpus, memory, gpus, gpu, slug, *wish in Revision.objects.filter(
        pk__in=needed
    ).values_list(*REVISION):
        found[pk] = RevisionFacts(
            pk, number, path, int(size or 0), vcpus * 1000, memory, gpus, gpu, slug, **_wished(*wish)
        )
        numbers[endpoint_id][number] = pk
    ours = {row.owner: row.pk for row in rows}
    shown = {(ours[one.owner], one.revision) for one in observed.values() if one.owner in ours}
    unknown = {(endpoint, number) for endpoint, number in shown if number not in numbers[endpoint]}
    if unknown:
        asked = Q(endpoint__in={one for one, _ in unknown}, number__in={number for _, number in unknown})
        for pk, endpoint_id, number in Revision.objects.filter(asked).values_list("pk", "endpoint_id", "number"):
            numbers[endpoint_id][number] = pk
    return found, numbers


def _wished(method: str, framework: str, container: Mapping[str, Any] | None, runtime: str) -> dict[str, Any]:
    """What the planner must know of a revision's spec. In a cluster an image is pulled as part of the start."""
    pull = PhaseKind.BUILD.deadline.total_seconds() if runtime == RuntimeKind.KUBERNETES else 0
    if method == Method.CUSTOM:
        image = ContainerSpec(**container or {})
        times = {"health_path": image.health_path, "startup_seconds": image.startup_seconds + int(pull)}
        return {"engine": Framework.CUSTOM, "builds": True, **times}
    local = runtime == RuntimeKind.PROCESS and framework in MODEL_SERVERS
    usual = PhaseKind.LOADING.deadline.total_seconds() if pull else 0
    builds = local or runtime == RuntimeKind.DOCKER
    return {"engine": framework, "builds": builds, "startup_seconds": int(usual + pull)}


def _facts(row: Endpoint, stored: Stored, in_flight: Mapping[str, int] | None) -> EndpointFacts:
    deployment = stored.deployments.get(row.pk)
    return EndpointFacts(
        id=row.pk,
        owner=row.owner,
        alias=row.name,
        desired=row.desired,
        wanted=row.wanted,
        generation=row.generation,
        observed_generation=row.observed_generation,
        status=row.status,
        wished_at=row.wished_at,
        restarted_at=row.restarted_at,
        serving=stored.revisions[row.serving_revision_id] if row.serving_revision_id else None,
        deployment=_deployment(deployment, stored) if deployment else None,
        halted=row.halted_at is not None,
        notice=row.notice,
        instances=tuple(stored.live[row.pk]),
        failures=tuple(one for one in stored.crashed[row.pk] if one.at > row.wished_at),
        in_flight=in_flight,
        revision_numbers=stored.numbers[row.pk],
        revisions={
            number: stored.revisions[pk] for number, pk in stored.numbers[row.pk].items() if pk in stored.revisions
        },
        ended=stored.ended,
    )


def _deployment(row: Deployment, stored: Stored) -> DeploymentFacts:
    return DeploymentFacts(row.pk, stored.revisions[row.revision_id], row.started_at, tuple(stored.phases[row.pk]))


def ticks() -> list[dict[str, Any]] | None:
    """What each gateway said in the last five seconds, see gateway.tick; None when Valkey is away."""
    try:
        store = bell.valkey()
        keys = list(store.scan_iter(GATEWAYS, count=100))
        said = store.mget(keys) if keys else []
    except (redis.RedisError, OSError):
        return None
    return [json.loads(tick) for tick in said if tick]


def sources(said: Iterable[Mapping[str, Any]]) -> set[str]:
    """Which gateways said it."""
    return {str(tick["source"]) for tick in said}


def remembered() -> Heard:
    """When each gateway that spoke lately was heard last. Raises redis.RedisError."""
    try:
        before = json.loads(bell.valkey().get(HEARD) or "{}")
        return {source: datetime.fromtimestamp(float(last), UTC) for source, last in before.items()}
    except (AttributeError, TypeError, ValueError):
        log.warning("What was remembered of the gateways makes no sense and is forgotten.")
        return {}


def carried() -> Mapping[str, int] | None:
    """Requests in flight by instance name, over all gateways. None, which is not nothing, when Valkey is away, or
    has just come back and no gateway has spoken there yet, and while one that spoke lately is silent."""
    said = ticks()
    try:
        if not said or not is_whole(remembered(), sources(said)):
            return None
    except (redis.RedisError, OSError):
        return None
    total: dict[str, int] = defaultdict(int)
    for tick in said:
        for one in tick.get("endpoints", {}).values():
            for name, count in one.get("in_flight", {}).items():
                total[name] += count
    return total


def room_for(capacity: Capacity, revision: RevisionFacts) -> Room:
    """How many more instances of a revision fit, and what is short when none does."""
    count = capacity.fitting(
        cpu_millis=revision.cpu_millis,
        memory_bytes=revision.memory_bytes,
        gpus=revision.gpus,
        machine=revision.machine,
    )
    if count > 0:
        return Room(count)
    wants = f"{revision.cpu_millis / 1000:g} vCPU and {revision.memory_bytes / GIB:g} GiB"
    has = f"{capacity.cpu_millis_free / 1000:g} vCPU and {capacity.memory_bytes_free / GIB:.1f} GiB"
    wants += f" and {revision.gpus} {revision.gpu}" if revision.gpus else ""
    has += f" and {capacity.gpus_free} GPUs" if revision.gpus else ""
    said = f"Not enough is free: an instance needs {wants}; free here is {has}. {capacity.reason}"
    return Room(0, said.strip())
