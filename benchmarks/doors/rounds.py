"""Doors in turn, round after round."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.doors.figures import ASKS, Ask, Figures, Phase, figures
from benchmarks.doors.installs import Missing
from benchmarks.doors.native import MockEngine, Tools
from benchmarks.doors.peers import DOORS, Start
from benchmarks.doors.process import Running, pinned

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

    def judge(self, phases: Mapping[Ask, Phase], base: Figures | None) -> None:
        """Take a round's figures, or the reason why there are none."""
        loads = [phase.load for phase in phases.values()]
        self.errors += sum(load.errors for load in loads)
        self.trouble = self.trouble or next((load.trouble.strip() for load in loads if load.errors), "")
        ended = self.running.ended() if self.running else None
        if ended is not None:
            self.reason = ended
        elif not all(load.answered for load in loads):
            self.reason = self.trouble or "it answered nothing in time"
        else:
            self.rounds.append(figures(phases, self.running.memory_bytes() if self.running else 0, base))


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
        door = Door(name, Start((), "", 0))
        try:
            self._open(door, folder)
            yield door
        finally:
            if door.running is not None:
                door.running.stop()

    def direct(self) -> Door:
        """The engine itself, as if it were a door."""
        return Door(DIRECT, Start((), "", self.engine.port))

    def turn(self, direct: Door, doors: Sequence[Door]) -> None:
        """One round: load by load, the engine itself and then every door that can. So doors that are compared
        were measured seconds apart, and a busy moment of the machine is likelier to hit them alike."""
        able = [direct, *(door for door in doors if not door.reason)]
        seen: dict[str, dict[Ask, Phase]] = {door.name: {} for door in able}
        for door in able:
            self._drive(door, Ask(16), self.pace.warm)
        for ask in ASKS:
            for door in able:
                seen[door.name][ask] = self._drive(door, ask, self.pace.stream if ask.streams else self.pace.json)
        direct.judge(seen[DIRECT], None)
        if direct.reason:
            raise SystemExit(f"The mock engine itself failed: {direct.reason}")
        for door in able[1:]:
            door.judge(seen[door.name], direct.rounds[-1])

    def _open(self, door: Door, folder: Path) -> None:
        try:
            door.start = start = DOORS[door.name](folder, self.engine.port)
        except Missing as missing:
            door.reason = str(missing)
            return
        door.running = Running(
            start.command, core=self.door_core, log=folder / "log", folder=folder, environ=start.environ
        )
        ends = time.monotonic() + start.patience
        while True:
            load = self._drive(door, Ask(1), 0.01).load
            if load.answered and not load.errors:
                return
            if ended := door.running.ended():
                door.reason = ended
                return
            if time.monotonic() > ends:
                door.reason = f"no answer within {start.patience:g} s ({load.trouble.strip()})"
                return
            time.sleep(0.1)

    def _drive(self, door: Door, ask: Ask, seconds: float) -> Phase:
        start, running = door.start, door.running
        events = self.pace.events if ask.streams else 0
        began, harness = time.monotonic(), self.engine.cpu_seconds()
        before = running.cpu_seconds() if running else 0.0
        with pinned(self.load_core):
            load = self.tools.drive(
                start.port, start.path, start.key, connections=ask.connections, seconds=seconds, events=events
            )
        cpu = running.cpu_seconds() - before if running else 0.0
        harness = self.engine.cpu_seconds() - harness + load.cpu_seconds
        return Phase(load, cpu, harness, time.monotonic() - began)
