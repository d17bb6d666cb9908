"""Which machines can work, why the others can't, and which one to recommend."""

from __future__ import annotations

from operator import le

from endpoints import capacity, offers
from endpoints.memory import Estimate, Verdict, precision_problem
from endpoints.models import InstanceType, Region
from endpoints.models.catalogue import RuntimeKind
from endpoints.spec import LIMITS
from endpoints.templatetags.formats import bytes_binary
from endpoints.wizard.situation import Situation

SHORTEST = int(LIMITS["max_sequence_length"][0])


def reason_against(machine: InstanceType, situation: Situation) -> str:
    """Why this machine can't serve what was chosen so far; empty if it can, or nothing says it can't."""
    return (
        offers.machine_reason(machine, situation.engine)
        or (_region(machine, situation.region) if situation.region else "")
        or (precision_problem(machine.gpu, situation.data_type) or "" if machine.has_gpu else "")
        or _memory(machine, situation)
    )


def recommended(situation: Situation, *, length: int, concurrency: int, data_type: str) -> str:
    """The slug of the first machine of the list that fits with room to spare, else that can work at all."""
    able = [kind for kind in situation.catalogue.types.values() if not reason_against(kind, situation)]
    for kind in able:
        need = situation.estimate(kind, length=length, concurrency=concurrency, data_type=data_type)
        if need is None or need.verdict in (Verdict.FITS, Verdict.UNKNOWN):
            return kind.slug
    return able[0].slug if able else ""


def _region(machine: InstanceType, region: Region) -> str:
    """What the region can't give at all; an unknown capacity refuses nothing."""
    said = region.capacity
    if machine.has_gpu and region.runtime == RuntimeKind.PROCESS and not said:
        return f"There is no GPU in the region “{region.name}”: its processes use none."
    if machine.has_gpu and said.get("gpus", machine.gpu_count) < machine.gpu_count:
        why = str(said.get("reason") or "none was found").partition(";")[0]
        return f"There is no GPU in the region “{region.name}”: {why}."
    cpus = said.get("cpu_millis")
    if cpus is not None and machine.vcpus * 1000 > cpus:
        return f"Needs {machine.vcpus} vCPUs; the region “{region.name}” has {cpus / 1000:g}, overcommit included."
    memory = said.get("memory_bytes")
    if memory is not None and machine.memory_bytes > memory:
        there = bytes_binary(memory)
        return f"Needs {bytes_binary(machine.memory_bytes)} of memory; the region “{region.name}” has {there}."
    return _pieces(machine, region)


def _pieces(machine: InstanceType, region: Region) -> str:
    """Why it fits on none of a region's machines, even if all were empty, though it fits on them together."""
    if not region.capacity.get("pieces"):
        return ""
    pieces = capacity.read(region.capacity).of(machine.slug)
    if not pieces:
        return f"No node of the region “{region.name}” takes instances of this type."
    wants = (machine.vcpus * 1000, machine.memory_bytes, machine.gpu_count)
    if any(all(map(le, wants, (one.cpu_millis, one.memory_bytes, one.gpus))) for one in pieces):
        return ""
    most = max(pieces, key=lambda one: (one.gpus, one.memory_bytes, one.cpu_millis))
    has = f"{most.cpu_millis / 1000:g} vCPUs, {bytes_binary(most.memory_bytes)}, {most.gpus} GPUs"
    return f"Fits on no node of the region “{region.name}”; the largest has {has}."


def _memory(machine: InstanceType, situation: Situation) -> str:
    """A model that doesn't fit with the shortest length and one sequence doesn't fit at all."""
    need = situation.estimate(machine, length=SHORTEST, concurrency=1, data_type=situation.data_type)
    if need is None or need.verdict != Verdict.DOES_NOT_FIT or need.need_bytes is None:
        return ""
    kind = "GPU memory" if machine.has_gpu else "memory"
    return (
        f"{need.ran_out} The model needs {_least(need)} {bytes_binary(need.firm_bytes)} of {kind}; "
        f"this machine has {bytes_binary(need.available_bytes)} to give."
    ).strip()


def _least(need: Estimate) -> str:
    return "more than" if need.ran_out else "at least"


def length_problem(need: Estimate | None, machine: InstanceType, length: int, concurrency: int) -> str:
    """Why these settings are too much for a machine on which smaller ones work."""
    if need is None or need.verdict != Verdict.DOES_NOT_FIT or need.need_bytes is None:
        return ""
    way = []
    if need.largest_length and need.largest_length >= SHORTEST:
        way.append(f"at most {min(need.largest_length, int(LIMITS['max_sequence_length'][1])):,} tokens")
    if need.largest_concurrency:
        way.append(f"a batch size of at most {need.largest_concurrency}")
    mend = f"Choose {' or '.join(way)}, or a larger machine." if way else "Choose a larger machine."
    if need.ran_out:
        mend = f"{mend[:-1]}, or say yourself how much it needs."
    least = "more than " * bool(need.ran_out)
    return (
        f"{need.ran_out} {length:,} tokens × {concurrency} need {least}{bytes_binary(need.firm_bytes)}; "
        f"{machine.slug} has {bytes_binary(need.available_bytes)} to give. {mend}"
    ).strip()
