"""The numbers somebody watches, with the specification's healthy ranges as tones. Pure.

A tile shows one of three things: a value, "No requests", or "Not measured here" with the reason. A real zero is
a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from endpoints.templatetags import formats
from monitoring.gateways import Now
from monitoring.traffic import Total

NO_REQUESTS = "No requests"
RECENT_MINUTES = 5
Tone = tuple[str, str]
"""(ok | warn | bad | idle, its word)"""

FORMATS: Mapping[str, Callable[[Any], str]] = {
    "ms": formats.milliseconds,
    "percent": formats.percent,
    "number": formats.quantity,
    "bytes": formats.bytes_binary,
    "money": formats.money,
    "rate": formats.rate_per_hour,
}


@dataclass(frozen=True)
class Used:
    """What one live instance used when last looked at; None is not measured."""

    name: str
    cpu_percent: float | None = None  # of the type's vCPUs
    memory_percent: float | None = None  # of the type's memory
    memory_bytes: int | None = None
    gpu_percent: float | None = None


@dataclass(frozen=True)
class Facts:
    """One endpoint as it is: what tiles are made of."""

    wanted: int
    ready: int
    starting: int = 0
    target_concurrency: int = 10
    recent: Total = field(default_factory=Total)  # the last RECENT_MINUTES and the running one
    now: Now = field(default_factory=Now)
    gateways: bool = True  # at least one gateway speaks
    used: tuple[Used, ...] = ()
    no_gpu: str = ""  # why the GPU is not measured
    rates: tuple[float | None, ...] = ()  # requests a second of the last minutes, oldest first
    middles: tuple[float | None, ...] = ()  # their p95 in ms

    @property
    def in_flight(self) -> int:
        return sum(self.now.in_flight.values())


@dataclass(frozen=True)
class Tile:
    key: str
    label: str
    value: float | None
    format: str
    tone: Tone | None = None
    absent: str = ""  # said instead of the value
    note: str = ""
    points: tuple[float | None, ...] = ()
    hint: str = ""

    @property
    def text(self) -> str:
        return FORMATS[self.format](self.value)

    @property
    def tick(self) -> str:
        """Where the live value stands in a tick's data."""
        return f"tiles.{self.key}"

    def live(self) -> dict[str, Any]:
        """The tile as a tick carries it."""
        return {
            "value": self.absent or self.value,
            "tone": self.tone[0] if self.tone else "",
            "tone_label": self.tone[1] if self.tone else "",
            "note": self.note,
            "points": list(self.points),
        }


def tiles(facts: Facts) -> list[Tile]:
    """An endpoint's tiles, in the order in which a page shows them."""
    return [
        *(_latency(facts, q) for q in (50, 95, 99)),
        _rate(facts),
        _errors(facts),
        _gpu(facts),
        _memory(facts),
        _cpu(facts),
        _instances(facts),
    ]


def _latency(facts: Facts, q: int) -> Tile:
    n = facts.recent.latency.count
    value = facts.recent.latency_ms(q / 100)
    absent = NO_REQUESTS if not n else "" if value is not None else "Under 100 requests"
    return Tile(
        f"p{q}",
        f"Latency p{q}",
        value,
        "ms",
        tone=latency_tone(value),
        absent=absent,
        note=f"n = {n:,}, last {RECENT_MINUTES} min",
        points=facts.middles if q == 95 else (),
        hint="From merged histograms of all gateways, whole answers; at most 4.4 % off",
    )


def _rate(facts: Facts) -> Tile:
    room = facts.ready * facts.target_concurrency
    return Tile(
        "rps",
        "Requests/s",
        facts.now.per_second if facts.gateways else None,
        "number",
        tone=load_tone(facts.in_flight, room) if facts.gateways else None,
        absent="" if facts.gateways else "No gateway answers",
        note=f"{carried(facts)}, last {facts.now.window_seconds} s",
        points=facts.rates,
        hint=f"Target: {facts.target_concurrency} requests in flight an instance",
    )


def _errors(facts: Facts) -> Tile:
    value = facts.recent.error_percent
    failed = facts.recent.server_errors
    return Tile(
        "errors",
        "Error rate",
        value,
        "percent",
        tone=error_tone(value),
        absent="" if value is not None else NO_REQUESTS,
        note=f"{failed:,} of {facts.recent.requests:,}, last {RECENT_MINUTES} min",
        hint="Answers 5xx and broken streams; a caller's own mistakes (4xx) don't count",
    )


def _gpu(facts: Facts) -> Tile:
    value = mean(one.gpu_percent for one in facts.used)
    absent = "" if value is not None else f"Not measured here: {facts.no_gpu or 'no GPU counter answers'}"
    return Tile("gpu", "GPU", value, "percent", tone=gpu_tone(value), absent=absent, hint="NVML's utilization")


def _memory(facts: Facts) -> Tile:
    value = highest(one.memory_percent for one in facts.used)
    total = sum(one.memory_bytes or 0 for one in facts.used)
    return Tile(
        "memory",
        "Memory",
        value,
        "percent",
        tone=memory_tone(value),
        absent="" if value is not None else _unmeasured(facts),
        note=f"{formats.bytes_binary(total)} in all" if value is not None else "",
        hint="The fullest instance, resident memory in per cent of its type's",
    )


def _cpu(facts: Facts) -> Tile:
    value = mean(one.cpu_percent for one in facts.used)
    absent = "" if value is not None else _unmeasured(facts)
    return Tile("cpu", "CPU", value, "percent", absent=absent, hint="Mean of the instances, of their vCPUs")


def _instances(facts: Facts) -> Tile:
    starting = f", {facts.starting} starting" if facts.starting else ""
    return Tile("ready", "Ready instances", facts.ready, "number", note=f"{facts.wanted} wanted{starting}")


def _unmeasured(facts: Facts) -> str:
    running = facts.ready or facts.starting
    return "Not measured yet" if running else "No instance runs"


def latency_tone(ms: float | None) -> Tone | None:
    if ms is None:
        return None
    return ("ok", "Healthy") if ms < 1000 else ("bad", "Critical") if ms > 5000 else ("warn", "Slow")


def error_tone(value: float | None) -> Tone | None:
    if value is None:
        return None
    if value > 10:
        return "bad", "Critical"
    return ("warn", "Warning") if value > 5 else ("ok", "Healthy") if value < 1 else ("idle", "Raised")


def carried(facts: Facts) -> str:
    waiting = f", {facts.now.queued:,} waiting" if facts.now.queued else ""
    return f"{facts.in_flight:,} in flight{waiting}"


def load_tone(in_flight: int, room: int) -> Tone | None:
    if not room:
        return None
    return ("warn", "Near capacity") if in_flight > 0.8 * room else ("ok", "Healthy")


def gpu_tone(value: float | None) -> Tone | None:
    if value is None:
        return None
    if value > 95:
        return "bad", "Overloaded"
    if value < 20:
        return "warn", "Underutilized"
    return ("ok", "Healthy") if 60 <= value <= 80 else ("idle", "Normal")


def memory_tone(value: float | None) -> Tone | None:
    if value is None:
        return None
    if value > 95:
        return "bad", "Critical"
    return ("warn", "Warning") if value > 90 else ("ok", "Healthy") if value < 80 else ("idle", "High")


def mean(values: Any) -> float | None:
    known: Sequence[float] = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def highest(values: Any) -> float | None:
    return max((value for value in values if value is not None), default=None)
