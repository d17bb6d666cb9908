"""One door at a time, each in turn, round after round: what it carries, what it adds, what it costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.doors.installs import Missing
from benchmarks.doors.native import Load, MockEngine, Tools
from benchmarks.doors.peers import DOORS, Start
from benchmarks.doors.process import Running, pinned

CONNECTIONS = (1, 16, 64)
STREAMS = 64
DIRECT = "direct"


@dataclass(frozen=True)
class Pace:
    """How long it all takes: seconds of each load, and the events of one stream."""

    rounds: int
    json: float
    stream: float
    events: int
    warm: float


FULL = Pace(rounds=3, json=3.0, stream=4.0, events=100, warm=1.0)
QUICK = Pace(rounds=3, json=0.4, stream=0.7, events=30, warm=0.2)


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
    core_busy: float  # share of its core that the door used at 64 connections
    harness_busy: float  # share of the other core that engine and load generator used then


@dataclass
class Door:
    """One thing that is measured, and what was seen of it; `reason` once it can't run."""

    name: str
    start: Start
    running: Running | None = None
    reason: str = ""
    rounds: list[Figures] = field(default_factory=list)
    errors: int = 0
    trouble: str = ""


@dataclass(frozen=True)
class Bench:
    """The mock engine and its load generator on one core, the doors on the other."""

    tools: Tools
    engine: MockEngine
    door_core: int
    load_core: int
    pace: Pace

    @contextmanager
    def opened(self, name: str, folder: Path) -> Iterator[Door]:
        """A door that answers, or one with a reason. It stays open while the others are measured."""
        running: Running | None = None
        try:
            start = DOORS[name](folder, self.engine.port)
            running = Running(
                start.command, core=self.door_core, log=folder / "log", folder=folder, environ=start.environ
            )
            door = Door(name, start, running)
            self._wait(door)
        except Missing as missing:
            door = Door(name, Start((), "", 0), reason=str(missing))
        try:
            yield door
        finally:
            if running is not None:
                running.stop()

    def direct(self) -> Door:
        """The engine itself, as if it were a door."""
        return Door(DIRECT, Start((), "", self.engine.port))

    def turn(self, direct: Door, doors: Sequence[Door]) -> None:
        """One round: the engine itself, then every door that can."""
        base = self._measure(direct, None)
        for door in doors:
            if not door.reason:
                self._measure(door, base)

    def _wait(self, door: Door) -> None:
        assert door.running is not None
        ends = time.monotonic() + door.start.patience
        while True:
            tried = self._drive(door, connections=1, seconds=0.01)
            if tried.load.answered_all and not tried.load.errors:
                return
            why = door.running.ended()
            if why is not None or time.monotonic() > ends:
                late = f"no answer within {door.start.patience:g} s ({tried.load.trouble.strip()})"
                door.running.stop()
                raise Missing(why or late)
            time.sleep(0.1)

    def _drive(self, door: Door, *, connections: int, seconds: float, events: int = 0) -> Phase:
        start, running = door.start, door.running
        began, harness = time.monotonic(), self.engine.cpu_seconds()
        before = running.cpu_seconds() if running else 0.0
        with pinned(self.load_core):
            load = self.tools.drive(
                start.port, start.path, start.key, connections=connections, seconds=seconds, events=events
            )
        cpu = running.cpu_seconds() - before if running and running.ended() is None else 0.0
        harness = self.engine.cpu_seconds() - harness + load.cpu_seconds
        return Phase(load, cpu, harness, time.monotonic() - began)

    def _measure(self, door: Door, base: Figures | None) -> Figures | None:
        self._drive(door, connections=16, seconds=self.pace.warm)
        phases = [self._drive(door, connections=many, seconds=self.pace.json) for many in CONNECTIONS]
        stream = self._drive(door, connections=STREAMS, seconds=self.pace.stream, events=self.pace.events)
        for phase in (*phases, stream):
            door.errors += phase.load.errors
            door.trouble = door.trouble or phase.load.trouble.strip()
        if door.running and (ended := door.running.ended()):
            door.reason = ended
        elif not all(phase.load.answered_all for phase in (*phases, stream)):
            door.reason = door.trouble or "it answered nothing in time"
        if door.reason:
            return None
        memory = door.running.memory_bytes() if door.running else 0
        seen = figures(phases, stream, base, memory)
        door.rounds.append(seen)
        return seen


def figures(phases: Sequence[Phase], stream: Phase, base: Figures | None, memory: int) -> Figures:
    """From the phases at 1, 16 and 64 connections and the streams; `base` is the engine itself, None for it."""
    one, _, most = phases
    rates = [phase.load.answered / phase.load.seconds for phase in phases]
    first = stream.load.p50_us / 1000
    return Figures(
        rate_1=rates[0],
        rate_16=rates[1],
        rate_64=rates[2],
        p50_us=one.load.p50_us,
        added_p50_us=one.load.p50_us - base.p50_us if base else 0.0,
        p99_64_us=most.load.p99_us,
        cpu_request_us=most.cpu / most.load.answered_all * 1e6,
        first_event_p50_ms=first,
        added_first_event_p50_ms=first - base.first_event_p50_ms if base else 0.0,
        event_delay_p50_us=stream.load.delay_p50_us,
        event_delay_p99_us=stream.load.delay_p99_us,
        cpu_chunk_us=stream.cpu / stream.load.events * 1e6,
        memory_mb=memory / 2**20,
        core_busy=most.cpu / most.wall,
        harness_busy=most.harness_cpu / most.wall,
    )
