"""How soon an engine hears that the caller has gone."""

from __future__ import annotations

import socket
import statistics
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.lasting.ground import PATIENCE, Ground, within

TIMES = 30
BEGUN = b"data: "
STATES: dict[str, dict[str, Any]] = {
    "before the first byte": {"stream": True, "silent": True},
    "mid-stream": {"stream": True, "max_tokens": 100_000},
    "waiting for JSON": {"silent": True},
}


@dataclass(frozen=True)
class HangUps:
    """From a caller's close to the engine's hearing of it, milliseconds. `missed`: it never did."""

    p50_ms: float
    max_ms: float
    times: int
    missed: int


def hang_ups(ground: Ground, state: str, times: int = TIMES) -> HangUps:
    took = [_one(ground, STATES[state]) for _ in range(times)]
    heard = [one for one in took if one is not None] or [float("inf")]
    return HangUps(statistics.median(heard), max(heard), times, took.count(None))


def _one(ground: Ground, wish: dict[str, Any]) -> float | None:
    before = ground.engine.seen()
    with socket.create_connection(("127.0.0.1", ground.start.port), timeout=PATIENCE) as line:
        line.sendall(ground.request(**wish))
        if not within(PATIENCE, lambda: ground.engine.seen().open > before.open, 0.005):
            return None
        if "silent" not in wish:
            came = b""
            while came.count(BEGUN) < 3:
                came += line.recv(65536)
        left = time.monotonic_ns()
    if not within(PATIENCE, lambda: ground.engine.seen().hung_up > before.hung_up, 0.005):
        return None
    return (ground.engine.seen().hung_up_at - left) / 1e6
