"""From what instances were seen to use to what the next estimate should assume."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Max, QuerySet

from endpoints.fitting import found_of, need_of
from endpoints.models import Endpoint, Instance
from endpoints.models.deployment import InstanceState
from endpoints.models.measured import MeasuredMemory, model_digest
from endpoints.spec import Framework, SourceKind
from monitoring.models import Sample

SETTLED = timedelta(minutes=1)  # from ready until what it uses is what it needs
WINDOW = timedelta(minutes=15)
TAKES_ALL = frozenset({Framework.VLLM, Framework.CUSTOM})  # takes its share of a card whatever it needs; not known


def measure(*, at: datetime) -> int:
    """Note what every settled, lone instance used at most; how many notes were kept.

    Lone, because instances on one machine share the pages of a mapped model, and none of them uses it whole.
    """
    kept = 0
    for instance in _lone(at):
        revision, machine = instance.revision, instance.revision.instance_type
        spec, column = revision.wish, "gpu_memory_bytes" if machine.has_gpu else "memory_bytes"
        if spec.engine in TAKES_ALL or spec.source.kind == SourceKind.NONE or not revision.resolved:
            continue
        most = Sample.objects.filter(instance=instance, at__gt=at - WINDOW).aggregate(most=Max(column))["most"]
        found = found_of(revision.resolved)
        need = need_of(spec.engine, spec.llm, found, machine)
        if most is None or need is None or need.parts is None:
            continue
        used = most // max(1, machine.gpu_count) if machine.has_gpu else most  # a sample sums what the cards hold
        if used < need.parts.weights + need.parts.kv - need.parts.copies:
            continue  # some of it isn't there: nobody read it yet, or the system took it back
        model = model_digest(spec.source, found.revision, found.default_file, instance.endpoint.project)
        # Between firm and total nobody can tell less use from originals that gave way to their copies.
        above = used - need.parts.total if used > need.parts.total else min(0, used - need.parts.firm)
        kept += MeasuredMemory.note(
            model, spec.engine, spec.llm.data_type, machine, correction=above, used=used, at=at
        )
    return kept


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
