"""From what instances were seen to use to what the next estimate should assume."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Max, QuerySet

from endpoints.fitting import found_of, need_of
from endpoints.learning import key_of
from endpoints.memory import Parts, besides_cache
from endpoints.models import Endpoint, Instance, MeasuredMemory, MemoryFloor
from endpoints.models.deployment import InstanceState
from endpoints.spec import Framework, SourceKind
from monitoring.models import LogLine, Sample

SETTLED = timedelta(minutes=1)  # from ready until what it uses is what it needs
WINDOW = timedelta(minutes=15)
START: Final = 5_000  # lines in which an engine tells of its start


def measure(*, at: datetime) -> int:
    """Note what every settled, lone instance used at most; how many notes were kept.

    Lone, because instances on one machine share the pages of a mapped model, and none of them uses it whole.
    One that runs with what another ran out of memory with takes that one's note away.
    """
    kept = 0
    for instance in _lone(at):
        spec = instance.revision.wish
        if (
            spec.engine == Framework.CUSTOM
            or spec.source.kind == SourceKind.NONE
            or not instance.revision.resolved
        ):
            continue
        _refute(instance, at)
        kept += _measure(instance, at)
    return kept


def _measure(instance: Instance, at: datetime) -> bool:
    revision, machine = instance.revision, instance.revision.instance_type
    spec, found = revision.wish, found_of(revision.resolved)
    need = need_of(spec.engine, spec.llm, found, machine)
    used = _used(instance, need.parts, at) if need and need.parts else None
    if used is None or need is None or need.parts is None:
        return False
    if used < need.parts.weights + need.parts.kv - need.parts.copies:
        return False  # some of it isn't there: nobody read it yet, or the system took it back
    # Between firm and total nobody can tell less use from originals that gave way to their copies.
    above = used - need.parts.total if used > need.parts.total else min(0, used - need.parts.firm)
    return MeasuredMemory.note(*key_of(revision, found), machine, correction=above, used=used, at=at)


def _used(instance: Instance, parts: Parts, at: datetime) -> int | None:
    """What it used at most, on each card; None if nothing tells.

    vLLM takes its share of a card whatever it needs: there the engine's own words count, and a cache as large as
    was asked for.
    """
    machine = instance.revision.instance_type
    if instance.revision.wish.engine == Framework.VLLM:
        lines = LogLine.objects.filter(
            instance=instance, sequence__lte=START, text__contains="kv cache memory in use"
        )
        said = besides_cache(lines.values_list("text", flat=True))
        return None if said is None else said + parts.kv
    column = "gpu_memory_bytes" if machine.has_gpu else "memory_bytes"
    most: int | None = Sample.objects.filter(instance=instance, at__gt=at - WINDOW).aggregate(most=Max(column))[
        "most"
    ]
    return most // max(1, machine.gpu_count) if most and machine.has_gpu else most  # a sample sums what cards hold


def _refute(instance: Instance, at: datetime) -> None:
    """Forget how an instance ran out of memory if this one lives, and longer, where that says it can't."""
    revision, machine, ready_at = instance.revision, instance.revision.instance_type, instance.ready_at
    spec, found = revision.wish, found_of(revision.resolved)
    ended = MemoryFloor.known(*key_of(revision, found), machine, at=at)
    if ended is None or ready_at is None or not ended.refuted_by(instance.started_at, ready_at, at=at):
        return
    need = need_of(spec.engine, spec.llm, found, machine, floor=ended.floor)
    if need and need.least_bytes and need.least_bytes >= need.available_bytes:
        ended.delete()


def _lone(at: datetime) -> Iterator[Instance]:
    ready: QuerySet[Instance] = Instance.objects.live().filter(
        state=InstanceState.READY, ready_at__lt=at - SETTLED, endpoint__in=Endpoint.objects.living()
    )
    related = ("endpoint__project", "revision__instance_type")
    by_model: dict[tuple[int, str, str], list[Instance]] = {}
    for one in ready.select_related(*related):
        where = (one.endpoint.region_id, one.revision.model_path)  # in a cluster every model lies at the same path
        by_model.setdefault((*where, str(one.revision.resolved.get("commit"))), []).append(one)
    return (group[0] for group in by_model.values() if len(group) == 1)
