"""Who reads a long answer slowly, or not at all."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.lasting.ground import MB, PATIENCE, Ground, within

LONG_MB = 100
STILL = 1.0  # seconds without a byte taken from the engine: it has been stopped
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
GLANCE = 4096


@dataclass(frozen=True)
class Stalled:
    """One caller that took some kB of a long stream and then no more. `grown_mb` is the gateway's PSS over what it
    was before, `way_mb` what the engine could send until it was stopped: mostly in the kernel's buffers. `whole`
    if everything came once the caller read on."""

    before_mb: float
    grown_mb: float
    way_mb: float
    stopped: bool
    whole: bool


@contextmanager
def asked(ground: Ground, megabytes: int) -> Iterator[socket.socket]:
    """A connection on which a stream of so many MB comes, as fast as it is read."""
    with socket.create_connection(("127.0.0.1", ground.start.port), timeout=PATIENCE) as line:
        line.sendall(ground.request(stream=True, flood=megabytes))
        yield line


def read_on(line: socket.socket) -> bool:
    """Read to the end; False if it came too soon."""
    tail = b""
    while not tail.endswith(END):
        data = line.recv(MB)
        if not data:
            return False
        tail = (tail + data)[-len(END) :]
    return True


def stalled(ground: Ground) -> Stalled:
    with asked(ground, 2) as line:
        read_on(line)  # the first stream of a process costs what stays
    before = statistics.median(_sizes(ground, 1.0))
    start = ground.engine.seen().flooded
    with asked(ground, LONG_MB) as line:
        line.recv(GLANCE)
        stopped = within(PATIENCE, lambda: _still(ground))
        way = ground.engine.seen().flooded - start
        grown = max(_sizes(ground, 2.0)) - before
        return Stalled(before, grown, way / MB, stopped and way < LONG_MB * MB, read_on(line))


def _still(ground: Ground) -> bool:
    before = ground.engine.seen().flooded
    time.sleep(STILL)
    return ground.engine.seen().flooded == before


def _sizes(ground: Ground, seconds: float) -> list[float]:
    found, ends = [ground.memory_mb()], time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(0.1)
        found.append(ground.memory_mb())
    return found
