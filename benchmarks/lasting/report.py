"""What lasted, for people and as one JSON object. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.doors.native import Load
from benchmarks.lasting.churn import Churn, Growth
from benchmarks.lasting.crowd import Crowd
from benchmarks.lasting.hangups import HangUps
from benchmarks.lasting.readers import LONG_MB, Stalled

FLAT_PER_CENT, FLAT_MB = 5.0, 3.0  # either is flat
STALLED_MB = 2.0
HEARS_MS = 100.0


@dataclass(frozen=True)
class Lasted:
    hang_ups: Mapping[str, HangUps]
    stalled: Stalled
    crowd: Crowd
    streams: int
    churn: Churn


def rows(lasted: Lasted) -> list[str]:
    stalled, crowd, churn = lasted.stalled, lasted.crowd, lasted.churn
    found = [
        f"hang-up {state}: the engine hears of it after {seen.p50_ms:.1f} ms (p50), {seen.max_ms:.1f} ms at most; "
        f"{seen.times} times, {seen.missed} missed"
        for state, seen in lasted.hang_ups.items()
    ]
    found += [
        f"a reader who stops in {LONG_MB} MB: {stalled.grown_mb:+.2f} MB over {stalled.before_mb:.1f} MB, "
        f"{stalled.way_mb:.1f} MB had left the engine, {'all' if stalled.whole else 'NOT ALL'} came at last",
        f"{lasted.streams} streams: {crowd.load.answered} whole, {crowd.load.errors} not; an event comes after "
        f"{_delay(crowd.load)}, without the gateway after {_delay(crowd.direct)}; "
        f"{crowd.memory_kb:.1f} kB a stream, {crowd.cpu_chunk_us:.1f} µs of CPU an event",
        f"a slow reader beside them took {crowd.slow_mb:.1f} MB" + (" and was cut off" if crowd.slow_lost else ""),
        f"{churn.minutes:g} min of churn: heap {_grown(churn.heap)}, PSS {_grown(churn.memory)}",
        f"in which came {churn.requests:,} × load and "
        + ", ".join(f"{many:,} × {kind}" for kind, many in churn.visits.items()),
        f"then {'nothing' if churn.idle else 'SOMETHING'} was in flight, {churn.files_left:+d} open files",
    ]
    found += [f"wrong, {many} ×: {what}" for what, many in churn.wrong.items()]
    if crowd.load.errors:
        found.append(f"streams, {crowd.load.errors} ×, first: {crowd.load.trouble.strip()}")
    return found


def _delay(load: Load) -> str:
    return f"{load.delay_p50_us / 1000:.2f} ms (p50), {load.delay_p99_us / 1000:.1f} ms (p99)"


def _grown(seen: Growth) -> str:
    return f"{seen.early_mb:.1f} → {seen.late_mb:.1f} MB ({seen.mb:+.2f} MB, {seen.per_cent:+.1f} %)"


def bars(lasted: Lasted) -> dict[str, bool]:
    """What was promised, and whether this run keeps it."""
    stalled, crowd, churn = lasted.stalled, lasted.crowd, lasted.churn
    heard = [seen.missed == 0 and seen.max_ms <= HEARS_MS for seen in lasted.hang_ups.values()]
    return {
        f"hang-up <= {HEARS_MS:g} ms": all(heard),
        f"stalled reader <= {STALLED_MB:g} MB": stalled.stopped and stalled.grown_mb <= STALLED_MB,
        "stalled reader gets all": stalled.whole,
        f"{lasted.streams} streams whole": crowd.load.errors == 0 and crowd.load.answered >= lasted.streams,
        "churn is flat": churn.heap.mb < FLAT_MB or churn.heap.per_cent < FLAT_PER_CENT,
        "churn fails nobody": not churn.wrong,
        "churn leaves nothing": churn.idle and churn.files_left <= 0,
    }


def summary(lasted: Lasted, *, load: float) -> dict[str, Any]:
    """The last line. `load` is the machine's load average: what else it had to do shows in delays."""
    churn = lasted.churn
    return {
        "benchmark": "endurance",
        "bars": bars(lasted),
        "hang_ups": {state: _rounded(seen) for state, seen in lasted.hang_ups.items()},
        "stalled_reader": _rounded(lasted.stalled),
        "streams": {"asked": lasted.streams, **_rounded(lasted.crowd)},
        "churn": _rounded(churn)
        | {
            name: {**_rounded(one), "growth_mb": round(one.mb, 2), "growth_per_cent": round(one.per_cent, 2)}
            for name, one in (("heap", churn.heap), ("memory", churn.memory))
        },
        "load_average": round(load, 1),
    }


def _rounded(seen: Any) -> dict[str, Any]:
    found: dict[str, Any] = dataclasses.asdict(seen)
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}
