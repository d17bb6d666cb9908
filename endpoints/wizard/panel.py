"""What stands beside every step: what it will cost, whether it fits, what was chosen so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from endpoints.memory import Estimate, Quick, Verdict, quick_estimate
from endpoints.models import InstanceType
from endpoints.spec import DataType, Framework, SourceKind
from endpoints.templatetags.formats import bytes_binary
from endpoints.wizard.judge import Judged
from endpoints.wizard.llm_form import numbers
from endpoints.wizard.situation import Situation

TONES: Final = {
    Verdict.FITS: "ok",
    Verdict.TIGHT: "warn",
    Verdict.DOES_NOT_FIT: "bad",
    Verdict.UNKNOWN: "idle",
}
# The quick formula's factor: 4 for FP32, 2 for FP16, 1 for INT8.
MULTIPLIERS: Final = {DataType.FLOAT32: 4.0, DataType.FLOAT16: 2.0, DataType.BFLOAT16: 2.0, DataType.INT8: 1.0}


@dataclass(frozen=True)
class Panel:
    """`instances` is how many run after deploying; `parts` feed the stacked bar, in bytes."""

    machine: InstanceType | None
    instances: int
    most: int | None
    per_request: bool
    need: Estimate | None
    parts: tuple[dict[str, Any], ...]
    verdict: str
    tone: str
    hints: tuple[str, ...]
    quick: Quick | None
    chosen: tuple[tuple[str, str], ...]


def panel_of(judged: Judged, answers: dict[str, dict[str, Any]]) -> Panel:
    situation = judged.situation
    length, batch, data_type = numbers(answers["llm"])
    machine = situation.machine
    need = None
    if machine:
        need = situation.estimate(machine, length=length, concurrency=batch, data_type=data_type)
    scaling = judged.scaling.cleaned_data
    return Panel(
        machine=machine,
        instances=max(1, scaling.get("min_instances", 1), scaling.get("warm_spare", 0)),
        most=scaling.get("max_instances"),
        per_request=scaling.get("billing_model") == "per_request",
        need=need,
        parts=_parts(need),
        verdict=_verdict(need, situation),
        tone=TONES[need.verdict] if need else "idle",
        hints=_hints(need),
        quick=_quick(judged, length, batch, data_type),
        chosen=tuple(_chosen(judged)),
    )


def _parts(need: Estimate | None) -> tuple[dict[str, Any], ...]:
    if need is None or need.parts is None:
        return ()
    parts = need.parts
    return (
        {"label": "Weights", "bytes": parts.weights - parts.copies},
        *([{"label": "Rearranged weights", "bytes": parts.copies}] if parts.copies else []),
        {"label": "KV cache", "bytes": parts.kv},
        {"label": "Overhead", "bytes": parts.activations + parts.base},
    )


def _verdict(need: Estimate | None, situation: Situation) -> str:
    if situation.machine is None:
        return "Choose a machine to see whether the model fits."
    if need is None:
        return _unknown(situation)
    if need.need_bytes is None:
        return " ".join(filter(None, ("Unknown.", need.ran_out, *need.notes)))
    there = bytes_binary(need.available_bytes)
    if need.verdict == Verdict.DOES_NOT_FIT:
        least = "more than " * bool(need.ran_out)
        return f"Does not fit: needs {least}{bytes_binary(need.firm_bytes)}, has {there}."
    if need.need_bytes > need.available_bytes:
        return f"Tight: uses {there}, and would use {bytes_binary(need.need_bytes)}."
    free = f"{bytes_binary(need.available_bytes - need.need_bytes)} of {there} stay free"
    if need.ran_out and need.parts is None:
        return f"By your own figure {free}, but as much was too little before."
    return f"Fits: {free}." if need.verdict == Verdict.FITS else f"Tight: only {free}."


def _unknown(situation: Situation) -> str:
    """Why nothing can be said of the need: never a number that nobody knows."""
    if situation.engine == Framework.CUSTOM:
        return "Unknown: only you know what your image needs. Choose a machine with room for it."
    if situation.look is None:
        return "Unknown: the model's files weren't read yet. Test the connection."
    files = f" Its files are {bytes_binary(situation.look.size)}." if situation.look.size else ""
    return f"Unknown: only GGUF and safetensors with their config.json say what a model needs.{files}"


def _hints(need: Estimate | None) -> tuple[str, ...]:
    if need is None or need.need_bytes is None or need.low_bytes is None or need.high_bytes is None:
        return ()
    told = (need.ran_out,) if need.ran_out else ()
    if need.low_bytes == need.high_bytes and need.parts is None:
        return (*told, *need.notes)
    hints = [*told, f"Between {bytes_binary(need.low_bytes)} and {bytes_binary(need.high_bytes)} per instance."]
    if need.measured:
        hints = [f"{bytes_binary(need.need_bytes)}, by what an instance of this model was seen to use."]
    if need.largest_length:
        bound = ", as many as it was trained for" * (need.largest_length == need.trained_context)
        hints.append(f"Largest length that fits: {need.largest_length:,} tokens{bound}.")
    if need.largest_concurrency:
        hints.append(f"Most sequences of this length: {need.largest_concurrency:,}.")
    return (*hints, *need.notes)


def _quick(judged: Judged, length: int, batch: int, data_type: str) -> Quick | None:
    look = judged.situation.look
    shape = look.shape if look else None
    if shape is None or not shape.parameter_count or not shape.hidden:
        return None
    factor = MULTIPLIERS[DataType(data_type)]
    return quick_estimate(shape.parameter_count / 1e9, factor, batch, length, shape.hidden)


def _chosen(judged: Judged) -> list[tuple[str, str]]:
    situation, basics = judged.situation, judged.basics.cleaned_data
    rows = [("Name", str(basics.get("name", ""))), ("Region", str(situation.region or ""))]
    if situation.engine == Framework.CUSTOM:
        rows.append(("Image", str(judged.method.cleaned_data.get("image") or "")))
    else:
        version = str(judged.method.cleaned_data.get("framework_version") or "")
        rows.append(("Framework", f"{Framework(situation.engine).label} {version}".strip()))
    if situation.source and situation.source.kind != SourceKind.NONE:
        rows.append(("Model", situation.source.named))
    if situation.look and situation.look.facts:
        rows.append(("Format", f"GGUF {situation.look.facts.quantization}".strip()))
    if situation.machine:
        rows.append(("Machine", situation.machine.slug))
    scaling = judged.scaling.cleaned_data
    if "min_instances" in scaling and "max_instances" in scaling:
        rows.append(("Instances", f"{scaling['min_instances']} to {scaling['max_instances']}"))
    return [(label, value) for label, value in rows if value]
