"""Whether a model fits a machine: the need in its parts, against what the machine has to give.

GPU (per card): weights / tp x 1.02 + cache + max(0.5 GiB, 5 % of the weights) for activations + 1 GiB CUDA
context + 1 GiB graphs. CPU: llama.cpp in a Python process, as measured (tests/endpoints/test_memory.py has
the points): the file's tensors mapped as they are, the cache, one 512-token batch of activations, and a base
of the interpreter, the library and the vocabulary's tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from endpoints.memory.kv import kv_bytes
from endpoints.memory.shape import ModelShape

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

CPU_PROCESS: Final = 48 * MIB
CPU_PER_TOKEN_KNOWN: Final = 512  # bytes of tables per entry of the vocabulary
CPU_PER_SLOT: Final = 24  # bytes per vocabulary entry and parallel sequence: logits and candidates
CPU_BATCH: Final = 512
CPU_PADDING: Final = 256  # llama.cpp rounds each sequence's length up to this
GPU_PADDING: Final = 16  # vLLM's block

GPU_WEIGHTS: Final = 1.02
GPU_ACTIVATIONS: Final = 512 * MIB
GPU_ACTIVATION_SHARE: Final = 0.05
CUDA_CONTEXT: Final = GIB
CUDA_GRAPHS: Final = GIB

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
    """Bytes, per card where several share the model."""

    weights: int
    kv: int
    activations: int
    base: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.activations + self.base


@dataclass(frozen=True)
class Estimate:
    """`low_bytes` to `high_bytes`: weights and cache are exact, the rest is an assumption until `measured`.

    `parts`, `need_bytes` and the largest values are None where the verdict is unknown. `largest_length` is
    for this concurrency, `largest_concurrency` for this length; 0 when not even one fits.
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
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quick:
    """The quick formula's bytes, and the same with 20 % and with 30 % for the framework."""

    plain_bytes: int
    low_bytes: int
    high_bytes: int


@dataclass(frozen=True)
class _Setting:
    kv_type: str
    kind: Literal["cpu", "gpu"]
    tp: int
    eager: bool
    measured_overhead: int | None


def estimate(
    shape: ModelShape,
    *,
    length: int,
    concurrency: int,
    kv_type: str,
    device: Device,
    tp: int = 1,
    eager: bool = False,
    measured_overhead: int | None = None,
) -> Estimate:
    """The need of `concurrency` sequences of `length` tokens on `device`, or on `tp` such cards.

    `measured_overhead`: bytes a running instance was seen to use beyond weights and cache; it takes the
    place of the assumed activations and base.
    """

    setting = _Setting(kv_type, device.kind, tp, eager, measured_overhead)
    notes, available = _notes(shape, length, tp), device.available_bytes
    now = _parts(shape, length, concurrency, setting)
    if now is None:
        notes = (*notes, _unknown(shape))
        return Estimate(None, None, None, None, available, Verdict.UNKNOWN, None, None, notes=notes)

    def fits(length: int, concurrency: int) -> bool:
        tried = _parts(shape, length, concurrency, setting)
        return tried is not None and tried.total <= available

    slack = 0 if measured_overhead is not None else int((now.activations + now.base) * UNCERTAIN)
    return Estimate(
        parts=now,
        need_bytes=now.total,
        low_bytes=now.total - slack,
        high_bytes=now.total + slack,
        available_bytes=available,
        verdict=Verdict.DOES_NOT_FIT if _indivisible(shape, tp) else _verdict(now.total, available),
        largest_length=_largest(lambda value: fits(value, concurrency), shape.trained_context or LONGEST),
        largest_concurrency=_largest(lambda value: fits(length, value), MOST_SEQUENCES),
        measured=measured_overhead is not None,
        notes=notes,
    )


def stated(need_bytes: int, device: Device) -> Estimate:
    """A person's own figure against the device, where they know better than any estimate."""
    available = device.available_bytes
    note = "Your own figure, which stands in for the estimate."
    same = (need_bytes, need_bytes, need_bytes)
    return Estimate(None, *same, available, _verdict(need_bytes, available), None, None, notes=(note,))


def quick_estimate(
    params_billion: float, precision_multiplier: float, batch: int, length: int, hidden: int
) -> Quick:
    """A first idea without the model's shape: parameters x bytes each + batch x length x hidden x 4.

    The first factor is billions of parameters (a size in GB times bytes per parameter would count twice).
    It knows neither layers nor the key-value pair, so decisions are made with `estimate`.
    """
    plain = int(params_billion * 1e9 * precision_multiplier) + batch * length * hidden * 4
    return Quick(plain, plain * 6 // 5, plain * 13 // 10)


def _parts(shape: ModelShape, length: int, concurrency: int, on: _Setting) -> Parts | None:
    padding = CPU_PADDING if on.kind == "cpu" else GPU_PADDING
    kv = kv_bytes(shape, length=length, concurrency=concurrency, kv_type=on.kv_type, tp=on.tp, padding=padding)
    if kv is None or not shape.weight_bytes:
        return None
    weights = shape.weight_bytes // on.tp
    if on.kind == "gpu":
        weights = int(weights * GPU_WEIGHTS)
    if on.measured_overhead is not None:
        return Parts(weights, kv, on.measured_overhead, 0)
    if on.kind == "cpu":
        return Parts(weights, kv, *_cpu_overhead(shape, length, concurrency))
    activations = max(GPU_ACTIVATIONS, int(shape.weight_bytes // on.tp * GPU_ACTIVATION_SHARE))
    return Parts(weights, kv, activations, CUDA_CONTEXT + (0 if on.eager else CUDA_GRAPHS))


def _cpu_overhead(shape: ModelShape, length: int, concurrency: int) -> tuple[int, int]:
    """Activations of one batch and the base, for llama.cpp on the CPU."""
    vocabulary, hidden = shape.vocabulary or 0, shape.hidden or 0
    tokens = min(CPU_BATCH, length * concurrency)
    batch = tokens * 4 * (4 * hidden + 3 * (shape.feed_forward or 4 * hidden))
    return batch + concurrency * vocabulary * CPU_PER_SLOT, CPU_PROCESS + vocabulary * CPU_PER_TOKEN_KNOWN


def _verdict(need: int, available: int) -> Verdict:
    if need > available:
        return Verdict.DOES_NOT_FIT
    return Verdict.TIGHT if available - need < available * TIGHT else Verdict.FITS


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest value from 1 to `most` that fits, 0 if none; `fits` turns false once and stays so."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _notes(shape: ModelShape, length: int, tp: int) -> tuple[str, ...]:
    notes = list(shape.notes)
    if shape.trained_context and length > shape.trained_context:
        notes.append(f"The model was trained for {shape.trained_context:,} tokens; answers beyond get worse.")
    if _indivisible(shape, tp):
        notes.append(f"{shape.heads} attention heads can't be divided among {tp} GPUs.")
    if any(layers.latent or layers.kv_heads < tp for layers in shape.attention or ()) and tp > 1:
        notes.append(f"Each of the {tp} GPUs keeps a copy of part of the cache: it doesn't shrink further.")
    return tuple(notes)


def _indivisible(shape: ModelShape, tp: int) -> bool:
    return bool(shape.heads and shape.heads % tp)


def _unknown(shape: ModelShape) -> str:
    if not shape.weight_bytes:
        return "The size of the weights isn't known, so neither is the need."
    return "The model's description leaves out its layers or heads, so the cache can't be counted."
