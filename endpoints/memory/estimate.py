"""Whether a model fits a machine: the need in its parts, against what the machine has to give.

GPU (per card): weights / cards x 1.02 + cache + max(0.5 GiB, 5 % of the weights) for activations + 1 GiB CUDA
context + 1 GiB graphs where vLLM takes them. llama.cpp on a CPU, as measured (tests/endpoints/test_memory.py has
the points): the file's tensors mapped as they are and those rearranged for the CPU once more, the cache with its
checkpoints, one 512-token batch of activations, and a base of the interpreter, the library and the vocabulary's
tables. Other engines on a CPU: the activations of a GPU and half a GiB for the process.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

from endpoints.memory.floor import Floor
from endpoints.memory.kv import BATCHED, BATCHED_LARGE, LLAMA_CPP, VLLM, checkpoint_bytes, kv_bytes
from endpoints.memory.shape import ModelShape

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

CPU_PROCESS: Final = 48 * MIB
CPU_PER_TOKEN_KNOWN: Final = 512  # bytes of tables per entry of the vocabulary
CPU_PER_SLOT: Final = 24  # bytes per vocabulary entry and parallel sequence: logits and candidates
CPU_BATCH: Final = 512
OTHER_PROCESS: Final = 512 * MIB  # Python with torch and transformers, or their like

GPU_WEIGHTS: Final = 1.02
GPU_ACTIVATIONS: Final = 512 * MIB
GPU_ACTIVATION_SHARE: Final = 0.05
CUDA_CONTEXT: Final = GIB
CUDA_GRAPHS: Final = GIB
LARGE_CARD: Final = 70 * GIB  # where vLLM takes longer steps

TIGHT: Final = 0.10
UNCERTAIN: Final = 0.5  # of activations and base, while unmeasured
MOST_SEQUENCES: Final = 1024
LONGEST: Final = 1 << 20


class Verdict(StrEnum):
    FITS = "fits"
    TIGHT = "tight"
    DOES_NOT_FIT = "does_not_fit"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Device:
    """What one instance may use: its memory (cpu) or one card (gpu). `utilization` is a share of what
    `reserved` leaves, so nothing that others hold is promised."""

    kind: Literal["cpu", "gpu"]
    total_bytes: int
    reserved_bytes: int = 0
    utilization: float = 1.0

    @property
    def available_bytes(self) -> int:
        return max(0, int((self.total_bytes - self.reserved_bytes) * self.utilization))


@dataclass(frozen=True)
class Parts:
    """Bytes, per card where several share the model. `copies`: of those weights that stand in `weights` twice; the
    system takes the mapped originals back when it needs room, so what must fit is `firm`."""

    weights: int
    kv: int
    activations: int
    base: int
    copies: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.activations + self.base

    @property
    def firm(self) -> int:
        return self.total - self.copies


@dataclass(frozen=True)
class Estimate:
    """`low_bytes` to `high_bytes`: weights and cache are exact, the rest is an assumption until `measured`.

    `parts`, `need_bytes` and the largest values are None where the verdict is unknown. `largest_length` is
    for this concurrency and no more than `trained_context`, `largest_concurrency` for this length; 0 when not
    even one fits. `ran_out` tells of the instance that ran out of memory where that decides or speaks against
    it: then the need is more than what is said. `least_bytes`: what that instance alone tells, if anything.
    """

    parts: Parts | None
    need_bytes: int | None
    low_bytes: int | None
    high_bytes: int | None
    available_bytes: int
    verdict: Verdict
    largest_length: int | None
    largest_concurrency: int | None
    measured: bool = False
    trained_context: int | None = None
    notes: tuple[str, ...] = ()
    ran_out: str = ""
    least_bytes: int | None = None

    @property
    def firm_bytes(self) -> int | None:
        """What there must be room for: the need without what the system takes back."""
        return self.parts.firm if self.parts else self.need_bytes


@dataclass(frozen=True)
class Quick:
    """The quick formula's bytes, and the same with 20 % and with 30 % for the framework."""

    plain_bytes: int
    low_bytes: int
    high_bytes: int


@dataclass(frozen=True)
class _Setting:
    kv_type: str
    engine: str
    device: Device
    gpus: int
    eager: bool
    correction: int | None


def estimate(
    shape: ModelShape,
    *,
    length: int,
    concurrency: int,
    kv_type: str,
    engine: str,
    device: Device,
    gpus: int = 1,
    eager: bool = False,
    correction: int | None = None,
    floor: Floor | None = None,
) -> Estimate:
    """The need of `concurrency` sequences of `length` tokens on `device`, or on each of so many `gpus` alike.

    `correction`: the bytes that a running instance was seen to use above what this assumes of it; less than 0
    where it assumes too much. `floor`: what one that ran out of memory tells. The greater of the two decides.
    """

    seen = _Setting(kv_type, engine, device, gpus, eager, correction)
    setting, notes, available = _raised(seen, floor), _notes(shape, length, seen), device.available_bytes
    now = _parts(shape, length, concurrency, setting)
    if now is None:
        return uncounted(length, concurrency, device, floor, (*notes, _unknown(shape)))

    at_least = setting is not seen
    sure = int(available * (1 - TIGHT)) if at_least else available

    def fits(length: int, concurrency: int) -> bool:
        tried = _parts(shape, length, concurrency, setting)
        return tried is not None and tried.firm <= sure

    measured = correction is not None and not at_least
    slack = 0 if measured else int((now.activations + now.base) * UNCERTAIN)
    apart, short = _indivisible(shape, setting), at_least and now.firm >= available
    return Estimate(
        parts=now,
        need_bytes=now.total,
        low_bytes=now.firm - (0 if at_least else slack),
        high_bytes=now.total + slack,
        available_bytes=available,
        verdict=Verdict.DOES_NOT_FIT if apart or short else _verdict(now.total, available, now.firm),
        largest_length=_largest(lambda value: fits(value, concurrency), shape.trained_context or LONGEST),
        largest_concurrency=_largest(lambda value: fits(length, value), MOST_SEQUENCES),
        measured=measured,
        trained_context=shape.trained_context,
        notes=notes,
        ran_out=str(floor) if at_least else "",
        least_bytes=_least(shape, length, concurrency, seen, floor),
    )


def stated(need_bytes: int, device: Device, floor: Floor | None = None) -> Estimate:
    """A person's own figure against the device, where they know better than any estimate.

    It stands even where as much was too little before; then it is called tight at best, and why.
    """
    available, verdict = device.available_bytes, _verdict(need_bytes, device.available_bytes)
    note = "Your own figure, which stands in for the estimate."
    same = (need_bytes, need_bytes, need_bytes)
    against = str(floor) if floor and available <= floor.limit_bytes else ""
    verdict = Verdict.TIGHT if against and verdict == Verdict.FITS else verdict
    return Estimate(None, *same, available, verdict, None, None, notes=(note,), ran_out=against)


def uncounted(
    length: int, concurrency: int, device: Device, floor: Floor | None, notes: tuple[str, ...] = ()
) -> Estimate:
    """Where the need can't be counted it is unknown, but for what ran out of memory with settings no larger."""
    available = device.available_bytes
    if floor is None or not floor.covers(length, concurrency):
        return Estimate(None, None, None, None, available, Verdict.UNKNOWN, None, None, notes=notes)
    least = floor.limit_bytes
    told = {"notes": notes, "ran_out": str(floor), "least_bytes": least}
    if least >= available:
        same = (least, least, least)
        return Estimate(None, *same, available, Verdict.DOES_NOT_FIT, None, None, **told)  # type: ignore[arg-type]
    return Estimate(None, None, None, None, available, Verdict.UNKNOWN, None, None, **told)  # type: ignore[arg-type]


def quick_estimate(
    params_billion: float, precision_multiplier: float, batch: int, length: int, hidden: int
) -> Quick:
    """A first idea without the model's shape: parameters x bytes each + batch x length x hidden x 4.

    The first factor is billions of parameters (a size in GB times bytes per parameter would count twice).
    It knows neither layers nor the key-value pair, so decisions are made with `estimate`.
    """
    plain = int(params_billion * 1e9 * precision_multiplier) + batch * length * hidden * 4
    return Quick(plain, plain * 6 // 5, plain * 13 // 10)


def _raised(on: _Setting, floor: Floor | None) -> _Setting:
    """The same, with what ran out of memory in place of a lesser correction, or of none."""
    above = floor.above_bytes if floor else None
    return on if above is None or above <= (on.correction or 0) else replace(on, correction=above)


def _least(shape: ModelShape, length: int, concurrency: int, on: _Setting, floor: Floor | None) -> int | None:
    if floor is None or floor.above_bytes is None:
        return None
    parts = _parts(shape, length, concurrency, replace(on, correction=floor.above_bytes))
    return parts.firm if parts else None


def _parts(shape: ModelShape, length: int, concurrency: int, on: _Setting) -> Parts | None:
    batched = BATCHED_LARGE if on.device.total_bytes >= LARGE_CARD else BATCHED
    asked = {"length": length, "concurrency": concurrency, "kv_type": on.kv_type}
    kv = kv_bytes(shape, **asked, engine=on.engine, gpus=on.gpus, batched=batched)  # type: ignore[arg-type]
    if kv is None or not shape.weight_bytes:
        return None
    copies = 0
    if on.device.kind == "gpu":
        share = -(-(shape.weight_bytes - (shape.host_bytes if on.engine == LLAMA_CPP else 0)) // on.gpus)
        weights, assumed = int(share * GPU_WEIGHTS), _gpu_overhead(share, on)
    elif on.engine == LLAMA_CPP:
        copies = shape.copied_bytes
        weights, assumed = shape.weight_bytes + copies, _cpu_overhead(shape, length, concurrency)
        kv += concurrency * checkpoint_bytes(shape, on.kv_type)
    else:
        weights, assumed = shape.weight_bytes, (_activations(shape.weight_bytes), OTHER_PROCESS)
    if on.correction is None:
        return Parts(weights, kv, *assumed, copies)
    return Parts(weights, kv, max(0, sum(assumed) + on.correction), 0, copies)


def _gpu_overhead(weights: int, on: _Setting) -> tuple[int, int]:
    return _activations(weights), CUDA_CONTEXT + (CUDA_GRAPHS if on.engine == VLLM and not on.eager else 0)


def _activations(weights: int) -> int:
    return max(GPU_ACTIVATIONS, int(weights * GPU_ACTIVATION_SHARE))


def _cpu_overhead(shape: ModelShape, length: int, concurrency: int) -> tuple[int, int]:
    """Activations of one batch and the base, for llama.cpp on the CPU."""
    vocabulary, hidden = shape.vocabulary or 0, shape.hidden or 0
    tokens = min(CPU_BATCH, length * concurrency)
    batch = tokens * 4 * (4 * hidden + 3 * (shape.feed_forward or 4 * hidden))
    return batch + concurrency * vocabulary * CPU_PER_SLOT, CPU_PROCESS + vocabulary * CPU_PER_TOKEN_KNOWN


def _verdict(need: int, available: int, firm: int | None = None) -> Verdict:
    if (need if firm is None else firm) > available:
        return Verdict.DOES_NOT_FIT
    return Verdict.TIGHT if available - need < available * TIGHT else Verdict.FITS


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest value from 1 to `most` that fits, 0 if none; `fits` turns false once and stays so."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _notes(shape: ModelShape, length: int, on: _Setting) -> tuple[str, ...]:
    notes = list(shape.notes)
    if shape.trained_context and length > shape.trained_context:
        notes.append(f"The model was trained for {shape.trained_context:,} tokens; answers beyond get worse.")
    if heads := _indivisible(shape, on):
        notes.append(f"{heads} can't be divided among {on.gpus} GPUs.")
    if _repeated(shape, on):
        notes.append(f"Each of the {on.gpus} GPUs keeps a copy of part of the cache: it doesn't shrink further.")
    if shape.copied_bytes and on.engine == LLAMA_CPP and on.device.kind == "cpu":
        notes.append(
            "llama.cpp rearranges weights of this format for the CPU and keeps both: "
            "where memory gets short, the file's give way."
        )
    return tuple(notes)


def _repeated(shape: ModelShape, on: _Setting) -> bool:
    split = on.engine == VLLM and on.gpus > 1
    return split and any(layers.latent or layers.kv_heads < on.gpus for layers in shape.attention or ())


def _indivisible(shape: ModelShape, on: _Setting) -> str:
    """Which heads vLLM can't give each GPU equally many of; empty if it can. Others split no heads."""
    if on.engine != VLLM or on.gpus < 2:
        return ""
    if shape.heads and shape.heads % on.gpus:
        return f"{shape.heads} attention heads"
    odd = (
        layers.kv_heads
        for layers in shape.attention or ()
        if not layers.latent and max(layers.kv_heads, on.gpus) % min(layers.kv_heads, on.gpus)
    )
    return next((f"{heads} key-value heads" for heads in odd), "")


def _unknown(shape: ModelShape) -> str:
    if not shape.weight_bytes:
        return "The size of the weights isn't known, so neither is the need."
    return "The model's description leaves out its layers or heads, so the cache can't be counted."
