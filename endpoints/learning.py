"""What earlier instances of a model tell of its memory: what they used, and what they ran out of."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from endpoints.fitting import device_of, found_of, need_of
from endpoints.memory import Floor
from endpoints.models import Endpoint, Instance, InstanceType, MeasuredMemory, MemoryFloor, Revision
from endpoints.models.deployment import InstanceState
from endpoints.models.measured import model_digest
from endpoints.sources import Found
from endpoints.spec import Framework, SourceKind

RAN_OUT: Final = frozenset({"OutOfMemory", "OOMKilled"})  # reasons of ends: the engine's own words, its limit
# What engines say when a card, and not the machine around it, has no more.
CARD: Final = re.compile(
    r"(?:CUDA|HIP)(?: error:)? out of memory|cudaMalloc failed"
    r"|larger than the available KV cache memory|No available memory for the cache blocks"
)


@dataclass(frozen=True)
class Learned:
    """`correction` and `floor` as for `endpoints.fitting.need_of`."""

    correction: int | None = None
    floor: Floor | None = None


def learned(revision: Revision, found: Found, *, at: datetime) -> Learned:
    key, machine = key_of(revision, found), revision.instance_type
    ended = MemoryFloor.known(*key, machine, at=at)
    return Learned(MeasuredMemory.known(*key, machine, at=at), ended.floor if ended else None)


def key_of(revision: Revision, found: Found) -> tuple[str, str, str]:
    """What names the model among what is known: itself, its engine, its data type."""
    spec = revision.wish
    model = model_digest(spec.source, found.revision, found.default_file, revision.endpoint.project)
    return model, spec.engine, spec.llm.data_type


def note_ends(endpoint: Endpoint, names: Collection[str]) -> None:
    """Learn from those of these instances that ran out of memory; the same again tells no more."""
    rows = endpoint.instances.filter(name__in=names, state=InstanceState.FAILED, reason__in=RAN_OUT)
    for one in rows.select_related("revision__instance_type", "revision__endpoint__project"):
        if one.revision.resolved and tells_of(one, one.revision.instance_type):
            _note_end(one)


def tells_of(ended: Instance, machine: InstanceType) -> bool:
    """Whether its end tells of the memory that is estimated: the card's, where there is one.

    vLLM without a card takes a share of the machine, whatever its own limit; of a user's image nothing is counted.
    """
    spec = ended.revision.wish
    if spec.engine == Framework.CUSTOM or spec.source.kind == SourceKind.NONE:
        return False
    of_the_card = bool(CARD.search(ended.message))
    return of_the_card if machine.has_gpu else not of_the_card and spec.engine != Framework.VLLM


def _note_end(ended: Instance) -> None:
    revision, machine, at = ended.revision, ended.revision.instance_type, ended.ended_at
    if at is None:
        return
    llm, found, limit = revision.wish.llm, found_of(revision.resolved), device_of(machine).available_bytes
    need = need_of(revision.wish.engine, llm, found, machine)
    above = limit - need.parts.firm if need and need.parts else None
    floor = Floor(limit, llm.max_sequence_length, llm.batch_size, at.date(), above)
    lived = at - ended.started_at
    MemoryFloor.note(*key_of(revision, found), machine=machine, floor=floor, lived=lived, at=at)
