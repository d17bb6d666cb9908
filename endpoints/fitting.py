"""Whether what was found can run as it is asked for, and where: said in one sentence, or refused with a code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from endpoints import offers
from endpoints.memory import (
    KV_TYPE_FOR,
    Device,
    Estimate,
    Floor,
    ModelShape,
    Verdict,
    estimate,
    format_problem,
    precision_problem,
    shape_from_config,
    shape_from_gguf,
    stated,
    uncounted,
    usable_bytes,
)
from endpoints.models import InstanceType, Region
from endpoints.sources import Found
from endpoints.spec import GIB, DataType, Framework, LlmSpec, Quantization, SourceKind, Spec
from endpoints.templatetags.formats import bytes_binary

GPU_UTILIZATION = 0.9
BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2}  # a stored tensor's dtype, or what it is loaded as
CONVERTING = frozenset({Framework.VLLM, Framework.PYTORCH})  # while they load
SPREADING = frozenset({Framework.VLLM, Framework.LLAMA_CPP})  # over all GPUs of a machine
SHORT_COMMIT = 12


class Unfit(Exception):
    """What is asked for can't work; `reason` is a code, the text is for the person who asked."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def refuse_place(spec: Spec, region: Region, machine: InstanceType) -> None:
    """Raise Unfit for what this region or machine can't run at all."""
    reasons = [
        offers.reason_against(region, spec.engine),
        offers.machine_reason(machine, spec.engine),
        offers.source_reason(spec.engine, spec.source.kind),
    ]
    if said := " ".join(filter(None, reasons)):
        raise Unfit("NotOffered", said)


def fit(
    spec: Spec,
    found: Found,
    machine: InstanceType,
    *,
    correction: int | None = None,
    floor: Floor | None = None,
) -> str:
    """Say that the model can run there as asked, or raise Unfit. `correction` and `floor` as for `need_of`."""
    problems = _gguf_problems(spec, found) if spec.engine == Framework.LLAMA_CPP else _layout_problems(found)
    if machine.gpu and (refused := precision_problem(machine.gpu, spec.llm.data_type)):
        problems.append(refused)
    if problems:
        raise Unfit("SettingsDoNotFit", " ".join(problems))
    need = need_of(spec.engine, spec.llm, found, machine, correction=correction, floor=floor)
    if spec.memory_gib:
        need = stated(int(spec.memory_gib * GIB), device_of(machine), floor)
    if need is not None and need.verdict == Verdict.DOES_NOT_FIT:
        raise Unfit("DoesNotFit", _too_large(need, machine))
    known = "need not known"
    if need is not None and need.need_bytes:
        how = "by your own figure: " if spec.memory_gib else "measured before: " if need.measured else ""
        least = "more than " * bool(need.ran_out and not spec.memory_gib)
        known = f"{how}needs {least}{_gib(need.need_bytes)} of {_gib(need.available_bytes)}"
    return f"{_named(spec, found)}, memory {known}. {need.ran_out if need else ''}".strip()


def shape_of(engine: str, llm: LlmSpec, found: Found) -> ModelShape | None:
    """What the memory need hangs on; None where the files don't tell."""
    if found.facts is not None:
        return shape_from_gguf(found.facts)
    weights = found.weights
    if weights is None or weights.bytes is None or not weights.config:
        return None
    stored, loaded, size = BYTES_OF.get(weights.dtype), _loaded(engine, llm), weights.bytes
    if engine in CONVERTING and stored and loaded:
        size = size * loaded // stored
    return replace(shape_from_config(weights.config, size), parameter_count=weights.parameters)


def _loaded(engine: str, llm: LlmSpec) -> int | None:
    """Bytes of a value once it is loaded; None where the files decide."""
    if llm.quantization == Quantization.NONE:
        return BYTES_OF.get(llm.data_type)
    dynamic = engine == Framework.PYTORCH and llm.quantization == Quantization.DYNAMIC
    return BYTES_OF["float32"] if dynamic else None  # torch quantizes from that


def need_of(
    engine: str,
    llm: LlmSpec,
    found: Found,
    machine: InstanceType,
    *,
    correction: int | None = None,
    floor: Floor | None = None,
) -> Estimate | None:
    """The memory of one instance; None where nothing is known of the model's shape, nor ran out of memory.

    `correction`: the bytes that an instance of this model was seen to use above what is assumed of it; `floor`:
    how one of them ran out of memory.
    """
    shape = shape_of(engine, llm, found)
    if shape is None:
        told = uncounted(llm.max_sequence_length, llm.batch_size, device_of(machine), floor)
        return told if told.ran_out else None
    return estimate(
        shape,
        length=llm.max_sequence_length,
        concurrency=llm.batch_size,
        kv_type=_kv_type(engine, llm),
        engine=engine,
        device=device_of(machine),
        gpus=machine.gpu_count if machine.has_gpu and engine in SPREADING else 1,
        correction=correction,
        floor=floor,
    )


def _kv_type(engine: str, llm: LlmSpec) -> str:
    """What the cache is kept as: llama.cpp's is named by the data type, others keep what they compute in."""
    if engine == Framework.LLAMA_CPP:
        return KV_TYPE_FOR[llm.data_type]
    if engine == Framework.VLLM and llm.data_type == DataType.INT8:
        return "fp8"
    return "f32" if (_loaded(engine, llm) or BYTES_OF.get(llm.data_type, 4)) == 4 else "f16"


def found_of(resolved: Mapping[str, Any]) -> Found:
    """What a revision's first validation found: the files that it runs, of whose sizes only the sum was kept."""
    same = {name: resolved.get(name) for name in ("facts", "license", "weights", "layout")}
    sizes = [resolved.get("size", 0), *([0] * len(resolved["files"]))]
    files = [{"path": path, "size": size} for path, size in zip(resolved["files"], sizes, strict=False)]
    rest = {"files": files, "choices": [], "gated": False}
    return Found.from_dict({"revision": resolved["commit"], "default_file": resolved["file"], **rest, **same})


def device_of(machine: InstanceType) -> Device:
    """What one instance of this type may use."""
    if machine.has_gpu:
        given = usable_bytes(machine.gpu, machine.gpu_memory_bytes)
        return Device("gpu", given, utilization=GPU_UTILIZATION)
    return Device("cpu", machine.memory_bytes)


def _too_large(need: Estimate, machine: InstanceType) -> str:
    """What it needs, what there is, and how much of it would fit."""
    if (need.need_bytes or 0) <= need.available_bytes and not need.ran_out:
        return f"{' '.join(need.notes)} Choose a machine with another number of GPUs."
    least = "more than " * bool(need.ran_out)
    said = f"It needs {least}{_gib(need.firm_bytes)} and {machine.slug} has {_gib(need.available_bytes)}."
    said = f"{need.ran_out} {said}".strip()
    if not need.largest_length and not need.largest_concurrency:
        return f"{said} Choose a larger machine{', or say yourself how much it needs' * bool(need.ran_out)}."
    fits = [f"{need.largest_length:,} tokens"] if need.largest_length else []
    fits += [f"{need.largest_concurrency:,} sequences of this length"] if need.largest_concurrency else []
    return f"{said} What fits is {' or '.join(fits)}. Choose that, or a larger machine."


def _gguf_problems(spec: Spec, found: Found) -> list[str]:
    if found.facts is None:
        raise Unfit("NotAModel", "The model's header could not be read, so nothing is known of its needs.")
    llm = spec.llm
    problems = format_problem(
        found.facts, llm.load_format, llm.data_type, llm.quantization, max_length=llm.max_sequence_length
    )
    return list(problems.values())


def _layout_problems(found: Found) -> list[str]:
    return [note.said for note in found.layout.problems] if found.layout else []


def _named(spec: Spec, found: Found) -> str:
    pinned = f"{'version ' * (spec.source.kind == SourceKind.REGISTRY)}{found.revision[:SHORT_COMMIT]}"
    if found.facts is not None:
        return f"{found.default_file} at {pinned}: {found.facts.quantization}"
    count, size = len(found.files), sum(file.size for file in found.files)
    return f"{count:,} file{'s'[: count != 1]} at {pinned}, {bytes_binary(size)}"


def _gib(size: int | None) -> str:
    return f"{(size or 0) / GIB:.2f} GiB"
