"""Loading the planner's facts, for one endpoint or for all, in a constant number of queries."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import redis

from endpoints import bell
from endpoints.models import Deployment, Endpoint, Instance, Phase, Revision
from endpoints.models.deployment import DeploymentState, InstanceState
from endpoints.planner import (
    DeploymentFacts,
    EndpointFacts,
    Failure,
    InstanceFacts,
    PhaseFacts,
    RevisionFacts,
)
from endpoints.planner.limits import CRASH_WINDOW
from endpoints.runtimes.base import Capacity
from endpoints.spec import GIB

Row = TypeVar("Row", Revision, Instance)
GATEWAYS = "tir:gateway:*"


@dataclass(frozen=True)
class Loaded:
    """An endpoint with its facts, and its revisions by id."""

    endpoint: Endpoint
    facts: EndpointFacts
    revisions: Mapping[int, Revision]


def load(endpoints: Iterable[Endpoint], at: datetime) -> list[Loaded]:
    """The facts of these endpoints, without the room, which only a runtime can tell. Six queries."""
    rows = list(endpoints)
    ids = [row.pk for row in rows]
    revisions = _by_endpoint(Revision.objects.filter(endpoint__in=ids).select_related("instance_type"))
    live = _by_endpoint(Instance.objects.live().filter(endpoint__in=ids).order_by("id"))
    crashed = _by_endpoint(
        Instance.objects.filter(
            endpoint__in=ids, state=InstanceState.FAILED, ended_at__gt=at - CRASH_WINDOW
        ).order_by("ended_at")
    )
    unfinished = {
        one.endpoint_id: one for one in Deployment.objects.filter(endpoint__in=ids, state=DeploymentState.RUNNING)
    }
    phases: dict[int, list[Phase]] = defaultdict(list)
    for phase in Phase.objects.filter(deployment__in=unfinished.values()).order_by("position"):
        phases[phase.deployment_id].append(phase)
    newest = dict(
        Deployment.objects.filter(endpoint__in=ids)
        .order_by("endpoint_id", "-id")
        .distinct("endpoint_id")
        .values_list("endpoint_id", "state")
    )
    in_flight = carried()
    answer = []
    for row in rows:
        mine = {revision.pk: revision for revision in revisions[row.pk]}
        deployment = unfinished.get(row.pk)
        facts = EndpointFacts(
            id=row.pk,
            owner=row.owner,
            alias=row.name,
            desired=row.desired,
            wanted=row.wanted,
            generation=row.generation,
            observed_generation=row.observed_generation,
            status=row.status,
            restarted_at=row.restarted_at,
            serving=_revision(mine.get(row.serving_revision_id)) if row.serving_revision_id else None,
            deployment=_deployment(deployment, mine, phases[deployment.pk]) if deployment else None,
            last_failed=newest.get(row.pk) == DeploymentState.FAILED,
            halted=row.halted_at is not None,
            notice=row.notice,
            instances=tuple(_instance(one) for one in live[row.pk]),
            failures=tuple(
                _failure(one) for one in crashed[row.pk] if one.ended_at and one.ended_at > row.wished_at
            ),
            in_flight=in_flight,
            revision_numbers={revision.number: revision.pk for revision in mine.values()},
        )
        answer.append(Loaded(row, facts, mine))
    return answer


def carried() -> Mapping[str, int] | None:
    """Requests in flight by instance name, over all gateways; None when Valkey is away."""
    try:
        store = bell.valkey()
        keys = list(store.scan_iter(GATEWAYS, count=100))
        ticks = store.mget(keys) if keys else []
    except (redis.RedisError, OSError):
        return None
    total: dict[str, int] = defaultdict(int)
    for tick in ticks:
        for one in json.loads(tick).get("endpoints", {}).values() if tick else ():
            for name, count in one.get("in_flight", {}).items():
                total[name] += count
    return total


def room_for(capacity: Capacity, revision: Revision) -> tuple[int, str]:
    """How many more instances of a revision fit, and what is short when none does."""
    need = revision.instance_type
    counts = [
        capacity.cpu_millis_free // (need.vcpus * 1000),
        capacity.memory_bytes_free // need.memory_bytes,
    ]
    counts += [capacity.gpus_free // need.gpu_count] if need.gpu_count else []
    if min(counts) > 0:
        return min(counts), ""
    wants = f"{need.vcpus} vCPU and {need.memory_bytes / GIB:g} GiB"
    has = f"{capacity.cpu_millis_free / 1000:g} vCPU and {capacity.memory_bytes_free / GIB:.1f} GiB"
    wants += f" and {need.gpu_count} {need.gpu}" if need.gpu_count else ""
    has += f" and {capacity.gpus_free} GPUs" if need.gpu_count else ""
    return 0, f"Not enough is free: an instance needs {wants}; free here is {has}. {capacity.reason}".strip()


def _by_endpoint(rows: Iterable[Row]) -> dict[int, list[Row]]:
    grouped: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.endpoint_id].append(row)
    return grouped


def _revision(row: Revision | None) -> RevisionFacts | None:
    if row is None:
        return None
    return RevisionFacts(
        id=row.pk,
        number=row.number,
        model_path=row.model_path,
        model_bytes=int(row.resolved.get("size", 0)),
        cpu_millis=row.instance_type.vcpus * 1000,
        memory_bytes=row.instance_type.memory_bytes,
        gpus=row.instance_type.gpu_count,
    )


def _deployment(row: Deployment, revisions: Mapping[int, Revision], phases: list[Phase]) -> DeploymentFacts | None:
    revision = _revision(revisions.get(row.revision_id))
    if revision is None:
        return None
    return DeploymentFacts(
        id=row.pk,
        revision=revision,
        started_at=row.started_at,
        phases=tuple(
            PhaseFacts(one.kind, one.state, one.started_at, one.deadline, one.lease_until) for one in phases
        ),
    )


def _instance(row: Instance) -> InstanceFacts:
    return InstanceFacts(
        name=row.name,
        revision_id=row.revision_id,
        state=row.state,
        started_at=row.started_at,
        ready_at=row.ready_at,
        draining_at=row.draining_at,
        probe_failures=row.probe_failures,
        address=row.address,
    )


def _failure(row: Instance) -> Failure:
    return Failure(
        row.ended_at or row.started_at, row.revision_id, row.exit_code, row.ready_at is not None, row.message
    )
