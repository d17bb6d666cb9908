"""From what was seen of one door in one round to the numbers that are compared. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.doors.native import Load


@dataclass(frozen=True)
class Ask:
    """One kind of load: so many connections that ask for JSON, or for streams."""

    connections: int
    streams: bool = False


ONE, SOME, MANY, STREAMS = Ask(1), Ask(16), Ask(64), Ask(64, streams=True)
ASKS = (ONE, SOME, MANY, STREAMS)


@dataclass(frozen=True)
class Phase:
    """One load on one door. CPU seconds of the door, and of engine and load generator together, over `wall`."""

    load: Load
    cpu: float
    harness_cpu: float
    wall: float


@dataclass(frozen=True)
class Figures:
    """One door in one round. Rates are answers a second; `added` is over asking the engine directly, then."""

    rate_1: float
    rate_16: float
    rate_64: float
    rate_64_per_cpu_s: float  # answers for a second of the door's CPU: what it would carry with its core to itself
    p50_us: float
    added_p50_us: float
    p99_64_us: float
    cpu_request_us: float
    first_event_p50_ms: float
    added_first_event_p50_ms: float
    event_delay_p50_us: float
    event_delay_p99_us: float
    cpu_chunk_us: float
    memory_mb: float
    core_busy: float  # share of its core that the door got at 64 connections
    harness_busy: float  # share of the other core that engine and load generator got then


def figures(phases: Mapping[Ask, Phase], memory: int, base: Figures | None) -> Figures:
    """From a phase for each of ASKS, all of which were answered; `base` is the engine itself, None for it."""
    one, most, stream = phases[ONE], phases[MANY], phases[STREAMS]
    first = stream.load.p50_us / 1000
    return Figures(
        rate_1=rate(one),
        rate_16=rate(phases[SOME]),
        rate_64=rate(most),
        rate_64_per_cpu_s=most.load.answered / most.cpu if most.cpu else 0.0,
        p50_us=one.load.p50_us,
        added_p50_us=one.load.p50_us - base.p50_us if base else 0.0,
        p99_64_us=most.load.p99_us,
        cpu_request_us=most.cpu / most.load.answered * 1e6,
        first_event_p50_ms=first,
        added_first_event_p50_ms=first - base.first_event_p50_ms if base else 0.0,
        event_delay_p50_us=stream.load.delay_p50_us,
        event_delay_p99_us=stream.load.delay_p99_us,
        cpu_chunk_us=stream.cpu / stream.load.events * 1e6,
        memory_mb=memory / 2**20,
        core_busy=most.cpu / most.wall,
        harness_busy=most.harness_cpu / most.wall,
    )


def rate(phase: Phase) -> float:
    return phase.load.answered / phase.load.seconds
