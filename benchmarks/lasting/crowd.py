"""A thousand streams on one process, and one among them that reads slowly."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from benchmarks.doors.native import Load
from benchmarks.lasting.ground import PATIENCE, Ground
from benchmarks.lasting.readers import LONG_MB, asked

PACE_US = 100_000  # between two events of one stream
EVENTS = 100
SECONDS = 20.0  # of asking again: all are under way in its second half
SIP, SIP_EVERY = 16 * 1024, 0.1  # bytes, seconds


@dataclass(frozen=True)
class Crowd:
    """`load` is what the others saw, `direct` the same without a gateway; `memory_kb` is the gateway's PSS for
    each stream under way, `cpu_chunk_us` its CPU for each event. `slow_mb`: what the slow one took meanwhile."""

    load: Load
    direct: Load
    memory_kb: float
    cpu_chunk_us: float
    slow_mb: float
    slow_lost: bool


def crowd(ground: Ground, streams: int) -> Crowd:
    direct = _drive(ground, ground.engine.port, "/v1/chat/completions", streams)
    over, before, spent = Event(), ground.memory_mb(), ground.gateway.cpu_seconds()
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(_sip, ground, over)
        driven = pool.submit(_drive, ground, ground.start.port, ground.start.path, streams)
        most = _most(ground, driven)
        load = driven.result()
        over.set()
        taken, lost = slow.result()
    spent = ground.gateway.cpu_seconds() - spent
    each = (most - before) * 1024 / streams
    return Crowd(load, direct, each, spent / max(load.events, 1) * 1e6, taken / 2**20, lost)


def _drive(ground: Ground, port: int, path: str, streams: int) -> Load:
    return ground.tools.drive(
        port, path, ground.start.key, connections=streams, seconds=SECONDS, events=EVENTS, pace_us=PACE_US
    )


def _most(ground: Ground, driven: Future[Load]) -> float:
    """The most that the gateway held while they were under way."""
    most = 0.0
    while not driven.done():
        most = max(most, ground.memory_mb())
        time.sleep(0.5)
    return most


def _sip(ground: Ground, over: Event) -> tuple[int, bool]:
    """Take a long stream in small sips; how much was had, and whether it broke off."""
    taken = 0
    with asked(ground, LONG_MB) as line:
        line.settimeout(PATIENCE)
        while not over.wait(SIP_EVERY):
            data = line.recv(SIP)
            if not data:
                return taken, True
            taken += len(data)
    return taken, False
