"""Memory while callers of every kind come and go."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.lasting.callers import KINDS, Visits, newcomer
from benchmarks.lasting.ground import Ground, within

EVERY = 2.0  # seconds between two looks at the memory
SPELL = 2.0  # of each load of the generator
SETTLE = 20.0
WARM = 60.0
LEAST_MINUTES = 1.5


@dataclass(frozen=True)
class Sample:
    at: float  # seconds since the start
    memory_mb: float
    heap_mb: float


@dataclass(frozen=True)
class Growth:
    """Medians over the 2nd minute and over the last one, or less of both where there is less between them. In the
    first one a process finds its size: caches fill, and the allocator keeps what the busiest moment took."""

    early_mb: float
    late_mb: float

    @property
    def mb(self) -> float:
        return self.late_mb - self.early_mb

    @property
    def per_cent(self) -> float:
        return self.mb / self.early_mb * 100


@dataclass(frozen=True)
class Churn:
    """Growth of PSS, and of the heap in it. `visits` by kind; `requests` those of the load generator beside them.
    `wrong`: what failed that should not have, in words, and how often. What was left once all had gone: requests,
    and open files over those before."""

    minutes: float
    memory: Growth
    heap: Growth
    samples: Sequence[float]  # of the heap, MB
    visits: Mapping[str, int]
    requests: int
    wrong: Mapping[str, int]
    idle: bool
    files_left: int


def growth(sizes: Sequence[tuple[float, float]], seconds: float) -> Growth:
    """Of these MB, each with the second at which it was seen."""

    def of(start: float, end: float) -> float:
        return statistics.median(mb for at, mb in sizes if start <= at <= end)

    window = min(60.0, (seconds - WARM) / 3)
    return Growth(of(WARM, WARM + window), of(seconds - window, seconds))


def churn(ground: Ground, minutes: float) -> Churn:
    visits = Visits(ground, random.Random(3))
    asyncio.run(newcomer(visits))  # the spool's file is open from the first request on
    files, seconds = ground.files(), minutes * 60
    samples, answered = asyncio.run(_visiting(visits, seconds))
    idle = within(SETTLE, ground.idle)
    within(SETTLE, lambda: ground.files() <= files)
    return Churn(
        minutes=minutes,
        memory=growth([(one.at, one.memory_mb) for one in samples], seconds),
        heap=growth([(one.at, one.heap_mb) for one in samples], seconds),
        samples=[round(one.heap_mb, 1) for one in samples],
        visits=dict(visits.done),
        requests=answered,
        wrong=dict(visits.wrong),
        idle=idle,
        files_left=ground.files() - files,
    )


async def _visiting(visits: Visits, seconds: float) -> tuple[list[Sample], int]:
    over, samples, began = asyncio.Event(), list[Sample](), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for kind, (_, many) in KINDS.items():
            for _ in range(many):
                group.create_task(visits.keep(kind, over))
        loads = group.create_task(_loads(visits, over))
        while (at := time.monotonic() - began) < seconds:
            samples.append(Sample(at, visits.ground.memory_mb(), visits.ground.heap_mb()))
            await asyncio.sleep(EVERY)
        over.set()
    return samples, loads.result()


async def _loads(visits: Visits, over: asyncio.Event) -> int:
    """Whole answers and streams on connections that stay, as many as can be; how many came."""
    ground, answered, turn = visits.ground, 0, 0
    start = ground.start
    while not over.is_set():
        turn += 1
        wish = {"connections": 32, "events": 50} if turn % 2 else {"connections": 4, "events": 0}
        load = await asyncio.to_thread(
            ground.tools.drive, start.port, start.path, start.key, seconds=SPELL, **wish
        )
        answered += load.answered
        if load.errors:
            visits.wrong[f"load: {load.trouble.strip()}"] += load.errors
    return answered
