"""What instances use, in slots of 15 seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Protocol

from endpoints.models import Instance, Region
from endpoints.runtimes.base import Sampled
from monitoring.models import Sample

SLOT_SECONDS = 15
COLUMNS = {"network_rx": "network_rx_bytes", "network_tx": "network_tx_bytes"}


class Meter(Protocol):
    """The verb of a runtime that sampling needs."""

    def usage(self, owner: str | None = None) -> Mapping[str, Sampled]: ...


def slot_of(at: datetime) -> datetime:
    seconds = int(at.timestamp())
    return datetime.fromtimestamp(seconds - seconds % SLOT_SECONDS, UTC)


def sample(region: Region, runtime: Meter, *, at: datetime) -> int:
    """Write what the region's live instances use now; how many. Raises Unavailable.

    A slot keeps the last measured value of each column: what was measured once in it is not unmeasured by a
    later look that couldn't (the first look of another worker knows no CPU).
    """
    used = runtime.usage(None)
    slot = slot_of(at)
    instances = Instance.objects.live().filter(endpoint__region=region, name__in=list(used))
    rows = {one.pk: _row(one, used[one.name], slot) for one in instances.only("pk", "name", "endpoint_id")}
    for earlier in Sample.objects.filter(at=slot, instance_id__in=list(rows)):
        _keep_measured(rows[earlier.instance_id], earlier)
    Sample.objects.bulk_create(
        rows.values(), update_conflicts=True, unique_fields=["instance", "at"], update_fields=MEASURED
    )
    return len(rows)


MEASURED = [
    "cpu_millis", "memory_bytes", "gpu_percent", "gpu_memory_bytes",
    "disk_bytes", "network_rx_bytes", "network_tx_bytes",
]  # fmt: skip


def _row(instance: Instance, used: Sampled, slot: datetime) -> Sample:
    values: dict[str, Any] = {COLUMNS.get(name, name): value for name, value in asdict(used).items()}
    return Sample(instance_id=instance.pk, endpoint_id=instance.endpoint_id, at=slot, **values)


def _keep_measured(row: Sample, earlier: Sample) -> None:
    for name in MEASURED:
        if getattr(row, name) is None:
            setattr(row, name, getattr(earlier, name))
