"""Runtimes by behaviour, for tests and benchmarks: each does one thing that a real place may do."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from endpoints.capacity import Capacity
from endpoints.runtimes import replicas
from endpoints.runtimes.base import (
    Command,
    LogLine,
    Observed,
    Phase,
    Rejected,
    Report,
    Sampled,
    Unavailable,
    Workload,
)

PLENTY = 1 << 50


def now() -> datetime:
    return datetime.now(UTC)


class InstantRuntime:
    """Everything runs at once, in memory. Thousands of instances cost what a dictionary costs.

    `address` is what every instance answers as its own. `applied` lists the workloads that were asked for.
    """

    fetches = False

    def __init__(self, address: str = "http://127.0.0.1:9") -> None:
        self.address = address
        self.applied: list[Workload] = []
        self.instances: dict[str, Observed] = {}
        self.lines: dict[str, list[LogLine]] = {}
        self.samples: dict[str, Sampled] = {}
        self._owned: dict[str, set[str]] = {}

    def prepared(self, command: Command) -> bool:
        return True

    def prepare(self, command: Command, report: Report) -> str:
        return "Nothing to prepare."

    def apply(self, workload: Workload) -> None:
        if workload.replicas and workload.command is None:
            raise Rejected("there is nothing to run: no command")
        self.applied.append(workload)
        live = [
            replicas.Replica(one.name, one.revision, one.started_at)
            for one in self.observe(workload.owner).values()
            if one.phase != Phase.EXITED
        ]
        steps = replicas.steps(workload, live)
        for name in steps.stop:
            self.end(name, exit_code=0, message="stopped when asked", asked=True)
        for name in steps.start:
            self.add(self.born(name, workload))

    def born(self, name: str, workload: Workload) -> Observed:
        """What a new instance looks like."""
        return Observed(
            name, workload.owner, workload.revision, Phase.RUNNING, self.address, None, "", now(), None
        )

    def add(self, *instances: Observed) -> None:
        """Put instances here, as a benchmark does by the thousand."""
        for one in instances:
            self.instances[one.name] = one
            self._owned.setdefault(one.owner, set()).add(one.name)

    def end(
        self, name: str, *, exit_code: int | None = 137, message: str = "killed by signal 9", asked: bool = False
    ) -> None:
        """This one ends now."""
        one = self.instances[name]
        self.instances[name] = replace(
            one, phase=Phase.EXITED, exit_code=exit_code, message=message, finished_at=now(), asked=asked
        )

    def kill(self, *names: str) -> None:
        """kill -9 each of them."""
        for name in names:
            self.end(name)

    def say(self, name: str, *texts: str) -> None:
        """The instance writes these lines."""
        lines = self.lines.setdefault(name, [])
        lines += [LogLine(now(), "stderr", text, len(lines) + nth) for nth, text in enumerate(texts, 1)]

    def observe(self, owner: str | None = None) -> dict[str, Observed]:
        if owner is None:
            return dict(self.instances)
        return {name: self.instances[name] for name in self._owned.get(owner, ())}

    def wait(self, owner: str, seen: Mapping[str, Observed], seconds: float) -> None:
        known = {name for name, one in seen.items() if one.address or one.phase == Phase.EXITED}
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            there = InstantRuntime.observe(self, owner)
            if any(one.address or one.phase == Phase.EXITED for name, one in there.items() if name not in known):
                return
            time.sleep(0.005)

    def logs(self, name: str, after: int, limit: int) -> list[LogLine]:
        lines = self.lines.get(name, [])
        wanted = lines[after:] if after < 0 else [line for line in lines if line.offset > after]
        return wanted[:limit]

    def usage(self, owner: str | None = None) -> dict[str, Sampled]:
        live = (one.name for one in self.observe(owner).values() if one.phase != Phase.EXITED)
        return {name: self.samples.get(name, Sampled()) for name in live}

    def capacity(self) -> Capacity:
        return Capacity(PLENTY, PLENTY, PLENTY, PLENTY, 0, 0, "a runtime without walls")

    def forget(self, name: str) -> None:
        one = self.instances.get(name)
        if one is not None and one.phase == Phase.EXITED:
            self.lose(name)

    def lose(self, *names: str) -> None:
        """Gone without a trace."""
        for name in names:
            one = self.instances.pop(name)
            self._owned[one.owner].discard(name)
            self.lines.pop(name, None)


class SlowRuntime(InstantRuntime):
    """New instances stay in starting, without an address, until `let_go`."""

    def born(self, name: str, workload: Workload) -> Observed:
        return replace(super().born(name, workload), phase=Phase.STARTING, address=None)

    def let_go(self, names: Iterable[str] | None = None) -> None:
        """These (or all) get their address now."""
        for name in list(self.instances) if names is None else names:
            if self.instances[name].phase == Phase.STARTING:
                self.instances[name] = replace(self.instances[name], phase=Phase.RUNNING, address=self.address)


class CrashingRuntime(InstantRuntime):
    """Every instance ends as soon as it started, with this code and these last words."""

    def __init__(self, exit_code: int = 65, last_words: str = "serving: the model is not a GGUF file") -> None:
        super().__init__()
        self.exit_code = exit_code
        self.last_words = last_words

    def born(self, name: str, workload: Workload) -> Observed:
        self.say(name, "loading model", self.last_words)
        return replace(
            super().born(name, workload),
            phase=Phase.EXITED,
            address=None,
            exit_code=self.exit_code,
            message=f"exit code {self.exit_code}: {self.last_words}",
            finished_at=now(),
        )


class ForgetfulRuntime(InstantRuntime):
    """An instance that ended or was killed leaves no trace, as in a cluster that cleans up at once."""

    def end(self, name: str, *, exit_code: int | None = 137, message: str = "", asked: bool = False) -> None:
        self.lose(name)


class AwayRuntime(InstantRuntime):
    """Does nothing but raise Unavailable while `away`; what runs goes on running."""

    def __init__(self, *, away: bool = True) -> None:
        super().__init__()
        self.away = away

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("the runtime does not answer")

    def apply(self, workload: Workload) -> None:
        self._reach()
        super().apply(workload)

    def observe(self, owner: str | None = None) -> dict[str, Observed]:
        self._reach()
        return super().observe(owner)

    def logs(self, name: str, after: int, limit: int) -> list[LogLine]:
        self._reach()
        return super().logs(name, after, limit)

    def usage(self, owner: str | None = None) -> dict[str, Sampled]:
        self._reach()
        return super().usage(owner)

    def capacity(self) -> Capacity:
        self._reach()
        return super().capacity()

    def forget(self, name: str) -> None:
        self._reach()
        super().forget(name)
