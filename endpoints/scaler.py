"""Automatic scaling: reads what the gateways carry, remembers it outside, and writes only what changes.

Nothing is kept here. What was seen lately lies in Valkey and may be lost: what is wanted then is kept for the
whole scale-down delay, as if a person had just set it. A person's number holds in the same way: it stands
until a later decision differs, more at once if the load needs it, fewer only after the delay.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import redis
from django.db.models import Avg, Exists, F, OuterRef

from endpoints import bell, capacity, facts
from endpoints.autoscale import History, Signal, desired, is_whole, listen
from endpoints.autoscale.hearing import SILENCE
from endpoints.models import Deployment, Endpoint, Instance, Region
from endpoints.models.deployment import UNDER_WAY, DeploymentState, InstanceState
from endpoints.policy import policy_of

log = logging.getLogger(__name__)

HISTORY = "tir:autoscale:"  # and the endpoint's id; gone when nobody looked for as long as it could matter
FORGET_SECONDS = 60
SAMPLES = timedelta(seconds=45)  # CPU and memory are the mean of the slots in it
MACHINE = {"vcpus": "vcpus", "memory_bytes": "memory_bytes", "gpu_count": "gpu_count", "machine": "slug"}
Memory = dict[int, History]


@dataclass
class Traffic:
    """What all gateways that were heard carry for one endpoint, and how many wait there for an instance."""

    in_flight: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by instance name
    queued: int = 0

    @property
    def total(self) -> int:
        return sum(self.in_flight.values())


@dataclass(frozen=True)
class Use:
    cpu: float | None = None  # per cent of the machine
    memory: float | None = None


def autoscale(*, at: datetime) -> list[int]:
    """Decide for every endpoint whose number may change; the ids of those that got another."""
    said = facts.ticks()
    if not said:
        return []  # nobody can say what is carried, which is not nothing
    try:
        whole = _all_heard(said, at)
        traffic = _traffic(said)
        endpoints = [one for one in _endpoints() if _may_change(one, traffic[one.pk], at)]
        if not endpoints:
            return []
        memory = _recall(endpoints)
        signals = _signals(endpoints, traffic, whole, at)
        changed = [one.pk for one in endpoints if _decide(one, signals[one.pk], memory, at)]
        _remember(endpoints, memory)
    except (redis.RedisError, OSError) as problem:
        log.warning("Automatic scaling pauses: %s", problem)
        return []
    return changed


def _endpoints() -> Iterable[Endpoint]:
    """Those that are awake: what sleeps is woken by a gateway that has a caller for it, see `Endpoint.wake`."""
    running = Deployment.objects.filter(endpoint=OuterRef("pk"), state=DeploymentState.RUNNING)
    machine = {name: F(f"serving_revision__instance_type__{of}") for name, of in MACHINE.items()}
    return Endpoint.objects.autoscaled().annotate(deploying=Exists(running), **machine).order_by("id")


def _may_change(endpoint: Endpoint, traffic: Traffic, at: datetime) -> bool:
    return bool(traffic.total or traffic.queued) or endpoint.wanted != policy_of(endpoint, at).rest


def _decide(endpoint: Endpoint, signal: Signal, memory: Memory, at: datetime) -> bool:
    policy, known = policy_of(endpoint, at), memory.get(endpoint.pk)
    history = known.seen(signal, policy, at) if known else History.begin(signal, at)
    decision = desired(signal, policy, history, at)
    changed = decision is not None and endpoint.autoscale(
        decision.wanted, why=decision.why, generation=endpoint.generation, at=at
    )
    memory[endpoint.pk] = history.applied(decision, at) if decision and changed else history
    return changed


# ── what is carried, and by whom ─────────────────────────────────────────────────────────────────
def _traffic(said: Sequence[Mapping[str, Any]]) -> Mapping[int, Traffic]:
    found: dict[int, Traffic] = defaultdict(Traffic)
    for tick in said:
        for endpoint_id, part in tick.get("endpoints", {}).items():
            traffic = found[int(endpoint_id)]
            traffic.queued += int(part.get("queued", 0))
            for name, count in part.get("in_flight", {}).items():
                traffic.in_flight[name] += int(count)
    return found


def _signals(
    endpoints: Sequence[Endpoint], traffic: Mapping[int, Traffic], whole: bool, at: datetime
) -> Mapping[int, Signal]:
    instances: dict[int, list[tuple[str, str]]] = defaultdict(list)
    rows = Instance.objects.live().filter(endpoint__in=endpoints).values_list("endpoint_id", "name", "state")
    for endpoint_id, name, state in rows:
        instances[endpoint_id].append((name, state))
    use = _use([one.pk for one in endpoints if traffic[one.pk].total], at)
    free = dict(Region.objects.values_list("pk", "capacity"))
    return {
        one.pk: _signal(
            one,
            instances[one.pk],
            traffic[one.pk],
            use.get(one.pk, Use()),
            room=_room(one, free[one.region_id]),
            whole=whole,
        )
        for one in endpoints
    }


def _signal(
    endpoint: Endpoint,
    instances: Sequence[tuple[str, str]],
    traffic: Traffic,
    use: Use,
    *,
    room: int | None,
    whole: bool,
) -> Signal:
    ready = [name for name, state in instances if state == InstanceState.READY]
    return Signal(
        in_flight=traffic.total,
        queued=traffic.queued,
        wanted=endpoint.wanted,
        ready=len(ready),
        starting=sum(state in UNDER_WAY for _, state in instances),
        draining=sum(state == InstanceState.DRAINING for _, state in instances),
        idle=sum(not traffic.in_flight.get(name) for name in ready),
        cpu=use.cpu,
        memory=use.memory,
        whole=whole,
        deploying=bool(getattr(endpoint, "deploying", False)),
        room=room,
    )


def _room(endpoint: Endpoint, free: Mapping[str, Any]) -> int | None:
    """By what the region's runtime said within the last seconds; None where it said nothing, or doesn't know."""
    if "cpu_millis_free" not in free:
        return None
    vcpus, memory_bytes, gpus, machine = (getattr(endpoint, name) for name in MACHINE)
    return capacity.read(free).fitting(
        cpu_millis=vcpus * 1000, memory_bytes=memory_bytes, gpus=gpus, machine=machine
    )


def _use(endpoints: Collection[int], at: datetime) -> Mapping[int, Use]:
    """Mean CPU and memory of the ready instances. Samples are monitoring's rows, reached by their relation."""
    if not endpoints:
        return {}
    machine = ("revision__instance_type__vcpus", "revision__instance_type__memory_bytes")
    rows = (
        Instance.objects.live()
        .filter(endpoint__in=endpoints, state=InstanceState.READY, samples__at__gt=at - SAMPLES)
        .values_list("endpoint_id", "name", *machine)
        .annotate(cpu=Avg("samples__cpu_millis"), memory=Avg("samples__memory_bytes"))
    )
    cpu: dict[int, list[float]] = defaultdict(list)
    memory: dict[int, list[float]] = defaultdict(list)
    for endpoint_id, _, vcpus, size, millis, used in rows:
        cpu[endpoint_id] += [] if millis is None else [millis / (vcpus * 10)]
        memory[endpoint_id] += [] if used is None else [100 * used / size]
    return {one: Use(_mean(cpu[one]), _mean(memory[one])) for one in endpoints}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# ── what is kept outside ─────────────────────────────────────────────────────────────────────────
def _all_heard(said: Sequence[Mapping[str, Any]], at: datetime) -> bool:
    """Whether no gateway that spoke lately is silent now; remembers who spoke. Raises redis.RedisError."""
    heard, left = facts.sources(said), facts.sources(tick for tick in said if tick.get("left"))
    known = listen(facts.remembered(), heard, at, left=left)
    told = json.dumps({source: last.timestamp() for source, last in known.items()})
    bell.valkey().set(facts.HEARD, told, ex=int(SILENCE.total_seconds()))
    return is_whole(known, heard)


def _recall(endpoints: Sequence[Endpoint]) -> Memory:
    found: Memory = {}
    for one, told in zip(endpoints, bell.valkey().mget([f"{HISTORY}{one.pk}" for one in endpoints]), strict=True):
        try:
            if told:
                found[one.pk] = History.from_json(json.loads(told))
        except (KeyError, TypeError, ValueError):
            log.warning("What was remembered of endpoint %s makes no sense and is forgotten.", one.pk)
    return found


def _remember(endpoints: Sequence[Endpoint], memory: Memory) -> None:
    pipe = bell.valkey().pipeline(transaction=False)
    for one in endpoints:
        pipe.set(f"{HISTORY}{one.pk}", json.dumps(memory[one.pk].as_json()), ex=FORGET_SECONDS)
    pipe.execute()
