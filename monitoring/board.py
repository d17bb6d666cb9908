"""The facts of endpoints as they are now, for many at once: the queries behind tiles and ticks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import redis

from endpoints import bell
from endpoints.models import Endpoint, Instance
from endpoints.models.deployment import InstanceState
from endpoints.status import Desired
from monitoring import gateways
from monitoring.gateways import Now
from monitoring.models import Sample, Traffic
from monitoring.numbers import RECENT_MINUTES, Facts, Used
from monitoring.traffic import COLUMNS, Total, merged

SPARK_MINUTES = 15
FRESH = timedelta(seconds=45)  # an older sample says nothing about now

Live = Mapping[int, Now]


def live_now() -> tuple[Live, bool]:
    """What gateways say by endpoint, and whether any of them speaks. Nothing when Valkey is away."""
    try:
        words = gateways.read(bell.valkey())
    except (redis.RedisError, OSError):
        return {}, False
    return gateways.merge(words), bool(words)


def facts_of(endpoints: Sequence[Endpoint], live: Live, *, speaking: bool, at: datetime) -> dict[int, Facts]:
    """Every endpoint's facts in three queries, however many there are. Each needs its `region` loaded."""
    keys = [endpoint.pk for endpoint in endpoints]
    minutes = minutes_of(keys, live, at=at)
    instances = instances_of(keys)
    samples = samples_of(keys, at=at)
    found = {}
    for endpoint in endpoints:
        mine = instances.get(endpoint.pk, [])
        by_minute = minutes.get(endpoint.pk, {})
        recent = [by_minute[m] for m in by_minute if m > minute_of(at) - RECENT_MINUTES * 60]
        spark = _spark(by_minute, at)
        found[endpoint.pk] = Facts(
            wanted=endpoint.wanted if endpoint.desired == Desired.RUNNING else 0,
            ready=sum(one.state == InstanceState.READY for one in mine),
            starting=sum(one.state in (InstanceState.STARTING, InstanceState.LOADING) for one in mine),
            target_concurrency=endpoint.target_concurrency,
            recent=merged(recent),
            now=live.get(endpoint.pk, Now()),
            gateways=speaking,
            used=tuple(used(one, samples[one.pk]) for one in mine if one.pk in samples),
            no_gpu=no_gpu(endpoint, mine),
            rates=tuple(total.requests / 60 for total in spark),
            middles=tuple(total.latency_ms(0.95) for total in spark),
        )
    return found


def minute_of(at: datetime) -> int:
    seconds = int(at.timestamp())
    return seconds - seconds % 60


def minutes_of(keys: Iterable[int], live: Live, *, at: datetime) -> dict[int, dict[int, Total]]:
    """By endpoint and minute, over gateways and revisions.

    Of the running minute, the fuller of what was written and what gateways say: a gateway writes every five
    seconds, but falls silent about an endpoint whose last traffic is ten seconds old.
    """
    since = at - timedelta(minutes=SPARK_MINUTES)
    rows = Traffic.objects.filter(endpoint_id__in=keys, minute__gte=since).values(
        "endpoint_id", "minute", *COLUMNS
    )
    found: dict[int, dict[int, Total]] = defaultdict(dict)
    for row in rows.values("endpoint_id", "minute", *COLUMNS):
        total = found[row["endpoint_id"]].setdefault(int(row["minute"].timestamp()), Total())
        total.merge(Total.of_row(row))
    for key, now in live.items():
        written = found[key].get(now.minute_at, Total())
        if now.minute_at == minute_of(at) and now.minute.requests > written.requests:
            found[key][now.minute_at] = now.minute
    return found


def _spark(by_minute: Mapping[int, Total], at: datetime) -> list[Total]:
    """The whole minutes before the running one; none where there was no traffic at all."""
    end = minute_of(at)
    starts = range(end - SPARK_MINUTES * 60 + 60, end, 60)
    spark = [by_minute.get(start, Total()) for start in starts]
    return spark if any(total.requests for total in spark) else []


def instances_of(keys: Iterable[int]) -> dict[int, list[Instance]]:
    """The live instances by endpoint, with their type."""
    found: dict[int, list[Instance]] = defaultdict(list)
    rows = Instance.objects.live().filter(endpoint_id__in=keys).select_related("revision__instance_type")
    for instance in rows:
        found[instance.endpoint_id].append(instance)
    return found


def samples_of(keys: Iterable[int], *, at: datetime) -> dict[int, Sample]:
    """The newest fresh sample by instance."""
    rows = Sample.objects.filter(endpoint_id__in=keys, at__gte=at - FRESH, at__lte=at)
    return {row.instance_id: row for row in rows.order_by("instance_id", "-at").distinct("instance_id")}


def used(instance: Instance, sample: Sample) -> Used:
    kind = instance.revision.instance_type
    cpu, memory = sample.cpu_millis, sample.memory_bytes
    return Used(
        name=instance.name,
        cpu_percent=None if cpu is None else cpu / (kind.vcpus * 10),
        memory_percent=None if memory is None else 100 * memory / kind.memory_bytes,
        memory_bytes=memory,
        gpu_percent=sample.gpu_percent,
    )


def no_gpu(endpoint: Endpoint, instances: Sequence[Instance]) -> str:
    """Why there is no GPU number."""
    reason = str(endpoint.region.capacity.get("reason") or "").partition(";")[0]  # the GPU's part of it
    if any(one.revision.instance_type.has_gpu for one in instances) or "NVIDIA" in reason:
        return reason
    return "this instance type has no GPU"
