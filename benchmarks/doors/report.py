"""What was measured, for people and as one JSON object."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.doors.figures import Figures
from benchmarks.doors.rounds import Door

BARS: Mapping[str, float] = {
    "nginx": 0.5,
    "vllm_router": 2.0,
    "envoy": 1.0,
    "litellm": 300.0,
}  # ours is this × theirs
ADDED_US, CHUNK_TO_NGINX = 100.0, 1.5
SATURATED = 0.9  # of a core: above it the harness, not the door, may be what ends the rate
DISTURBED = 0.8  # of a core: a door that got less while the harness had time to spare had it taken by others

COLUMNS: Sequence[tuple[str, Callable[[Figures], str]]] = (
    ("req/s at 1", lambda seen: f"{seen.rate_1:,.0f}"),
    ("at 16", lambda seen: f"{seen.rate_16:,.0f}"),
    ("at 64", lambda seen: f"{seen.rate_64:,.0f}"),
    ("added p50", lambda seen: f"{seen.added_p50_us:,.0f} µs"),
    ("p99 at 64", lambda seen: f"{seen.p99_64_us / 1000:,.1f} ms"),
    ("per CPU s", lambda seen: f"{seen.rate_64_per_cpu_s:,.0f}"),
    ("CPU/request", lambda seen: f"{seen.cpu_request_us:,.1f} µs"),
    ("first event +", lambda seen: f"{seen.added_first_event_p50_ms:,.3f} ms"),
    ("event p50", lambda seen: f"{seen.event_delay_p50_us:,.0f} µs"),
    ("event p99", lambda seen: f"{seen.event_delay_p99_us / 1000:,.2f} ms"),
    ("CPU/chunk", lambda seen: f"{seen.cpu_chunk_us:,.1f} µs"),
    ("PSS", lambda seen: f"{seen.memory_mb:,.0f} MB"),
    ("core", lambda seen: f"{seen.core_busy:.0%}"),
    ("harness", lambda seen: f"{seen.harness_busy:.0%}"),
)


def medians(rounds: Sequence[Figures]) -> Figures:
    names = [one.name for one in dataclasses.fields(Figures)]
    return Figures(**{name: statistics.median(getattr(seen, name) for seen in rounds) for name in names})


def table(doors: Sequence[Door]) -> list[str]:
    """One row a door that could run: medians of its rounds."""
    rows = [["", *(title for title, _ in COLUMNS)]]
    for door in doors:
        if not door.reason:
            middle = medians(door.rounds)
            rows.append([" ".join((door.name, door.start.version)), *(show(middle) for _, show in COLUMNS)])
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([name.ljust(wide[0]), *(cell.rjust(w) for cell, w in zip(cells, wide[1:], strict=True))])
        for name, *cells in rows
    ]


def compared(doors: Sequence[Door]) -> list[str]:
    """Ours over each peer, in words."""
    return [
        f"ours is {seen['rate_1']:.2f} / {seen['rate_16']:.2f} / {seen['rate_64']:.2f} × {name} at 1 / 16 / 64, "
        f"{seen['rate_64_per_cpu_s']:.2f} × per CPU second; a chunk costs {seen['cpu_chunk_us']:.2f} ×, "
        f"memory {seen['memory_mb']:.2f} ×"
        for name, seen in ratios({door.name: door for door in doors}).items()
    ]


def notes(doors: Sequence[Door]) -> list[str]:
    """Who could not run, what went wrong, and which numbers to doubt."""
    found = []
    for door in doors:
        if door.reason:
            found.append(f"{door.name}: not measured, {door.reason}")
        else:
            found += doubts(door.name, medians(door.rounds))
        if door.errors:
            found.append(f"{door.name}: {door.errors} requests failed, first: {door.trouble}")
    return found


def doubts(name: str, middle: Figures) -> list[str]:
    """What makes the rate at 64 connections say less than it seems to."""
    if middle.harness_busy > SATURATED:
        return [f"{name}: the harness needed {middle.harness_busy:.0%} of its core; the door may go faster"]
    if middle.core_busy < DISTURBED:
        return [f"{name}: got only {middle.core_busy:.0%} of its core, so others were at it; read “per CPU s”"]
    return []


def summary(direct: Door, doors: Sequence[Door], left_out: Mapping[str, str]) -> dict[str, Any]:
    """The last line: requests a second at 64 connections by name (null with `<name>_reason`), and the rest."""
    by_name = {door.name: door for door in doors}
    ours = by_name["ours"]
    answer: dict[str, Any] = {"benchmark": "gateway"}
    reasons = dict(left_out)
    for door in doors:
        answer[door.name] = None if door.reason else round(medians(door.rounds).rate_64)
        if door.reason:
            reasons[door.name] = door.reason
    answer |= dict.fromkeys(left_out)
    answer |= {f"{name}_reason": reason for name, reason in reasons.items()}
    middle = None if ours.reason else medians(ours.rounds)
    answer["added_p50_us"] = middle and round(middle.added_p50_us, 1)
    answer["stream_added_first_event_p50_ms"] = middle and round(middle.added_first_event_p50_ms, 4)
    answer["headroom"] = headroom(direct, doors)
    answer["ratios"] = ratios(by_name)
    answer["bars"] = bars(by_name, answer["ratios"])
    answer["details"] = {door.name: details(door) for door in (direct, *doors) if not door.reason}
    return answer


def headroom(direct: Door, doors: Sequence[Door]) -> float | None:
    """What the engine and the load generator can do on their one core, over what the fastest door did."""
    fastest = max((medians(door.rounds).rate_64 for door in doors if not door.reason), default=None)
    return fastest and round(medians(direct.rounds).rate_64 / fastest, 2)


def details(door: Door) -> dict[str, Any]:
    middle = dataclasses.asdict(medians(door.rounds))
    return {
        "version": door.start.version,
        "errors": door.errors,
        **{name: round(value, 4) for name, value in middle.items()},
        "rounds_rate_64": [round(seen.rate_64) for seen in door.rounds],
    }


def ratios(doors: Mapping[str, Door]) -> dict[str, dict[str, float]]:
    """Ours over each peer, of rates, CPU and memory: the median over rounds of what both did in the same round."""
    names = ("rate_1", "rate_16", "rate_64", "rate_64_per_cpu_s", "cpu_request_us", "cpu_chunk_us", "memory_mb")
    ours, found = doors["ours"], {}
    for name, peer in doors.items():
        if peer is ours or ours.reason or peer.reason:
            continue
        pairs = list(zip(ours.rounds, peer.rounds, strict=True))
        found[name] = {
            what: round(statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs), 3)
            for what in names
        }
    return found


def bars(doors: Mapping[str, Door], found: Mapping[str, Mapping[str, float]]) -> dict[str, bool]:
    """What was promised, and whether this run keeps it; a peer that could not run promises nothing."""
    if doors["ours"].reason:
        return {}
    kept = {f"{bar:g} x {name}": found[name]["rate_64"] >= bar for name, bar in BARS.items() if name in found}
    kept[f"added p50 <= {ADDED_US:g} us"] = medians(doors["ours"].rounds).added_p50_us <= ADDED_US
    if "nginx" in found:
        kept[f"CPU/chunk <= {CHUNK_TO_NGINX:g} x nginx"] = found["nginx"]["cpu_chunk_us"] <= CHUNK_TO_NGINX
    return kept
