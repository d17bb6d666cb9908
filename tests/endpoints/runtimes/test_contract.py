"""The contract, asked of processes and of the fakes that stand in for a runtime."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoints.capacity import Capacity
from endpoints.runtimes import scan
from endpoints.runtimes.base import Observed, Phase, Runtime, Workload
from endpoints.runtimes.folder import Folder
from endpoints.runtimes.process import ProcessRuntime
from tests.endpoints.runtimes.conftest import processes, workload
from tests.endpoints.runtimes.contract import HELLO, LAST_WORDS, Contract, Place
from tests.runtimes import AwayRuntime, ForgetfulRuntime, now
from tests.wait import until

New = Callable[..., ProcessRuntime]


class Processes:
    """This machine, for a stub engine."""

    keeps_the_ended = True

    def __init__(self, new: New, folder: Path) -> None:
        self.new = new
        self.go = folder / "go"
        self.runtime = new()

    def again(self) -> Runtime:
        return self.new()

    def elsewhere(self) -> Runtime:
        return self.new("elsewhere")

    def workload(self, replicas: int = 1, *, behave: str = "serve", **changes: Any) -> Workload:
        return workload(replicas, **{"env": {"BEHAVE": behave, "GO": str(self.go)}, **changes})

    def kill(self, name: str) -> None:
        os.kill(processes(self.runtime, name).engines[0], signal.SIGKILL)

    def vanish(self, name: str) -> None:
        live = processes(self.runtime, name)
        for pid in (live.supervisor, *live.engines):
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        until(lambda: name not in scan.live(self.runtime.data), what=f"{name} to write no more")
        Folder(self.runtime.root / name).remove()

    def let_go(self) -> None:
        self.go.touch()

    @contextmanager
    def outage(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as blind:
            blind.setattr(scan, "PROC", Path("/nonexistent/proc"))
            yield


class Obedient(AwayRuntime):
    """A fake whose instances do what the contract's workloads ask for."""

    def __init__(self) -> None:
        super().__init__(away=False)
        self.lock = threading.Lock()
        self.promised: dict[str, tuple[int, int]] = {}

    def apply(self, workload: Workload) -> None:
        with self.lock:
            super().apply(workload)

    def born(self, name: str, workload: Workload) -> Observed:
        self.promised[name] = (workload.cpu_millis, workload.memory_bytes)
        self.say(name, HELLO)
        one = super().born(name, workload)
        behave = workload.env.get("BEHAVE")
        if behave == "slow":
            return replace(one, phase=Phase.STARTING, address=None)
        if behave == "crash":
            self.say(name, LAST_WORDS)
            return self.dead(one, 1, f"exit code 1: {LAST_WORDS}")
        return self.dead(one, 137, "killed: it needed more memory") if behave == "hungry" else one

    def dead(self, one: Observed, exit_code: int, message: str) -> Observed:
        return replace(
            one, phase=Phase.EXITED, address=None, exit_code=exit_code, message=message, finished_at=now()
        )

    def capacity(self) -> Capacity:
        every = super().capacity()
        live = [self.promised[name] for name in self.usage()]
        return replace(
            every,
            cpu_millis_free=every.cpu_millis - sum(cpu for cpu, _ in live),
            memory_bytes_free=every.memory_bytes - sum(memory for _, memory in live),
        )


class ObedientForgetful(Obedient, ForgetfulRuntime):
    """The same, in a place that keeps nothing of what ended."""


class Fakes:
    """A dictionary, for a place."""

    def __init__(self, kind: type[Obedient]) -> None:
        self.runtime = kind()
        self.keeps_the_ended = not issubclass(kind, ForgetfulRuntime)

    def again(self) -> Runtime:
        return self.runtime

    def elsewhere(self) -> Runtime:
        return type(self.runtime)()

    def workload(self, replicas: int = 1, *, behave: str = "serve", **changes: Any) -> Workload:
        return workload(replicas, **{"env": {"BEHAVE": behave}, **changes})

    def kill(self, name: str) -> None:
        self.runtime.kill(name)

    def vanish(self, name: str) -> None:
        self.runtime.lose(name)

    def let_go(self) -> None:
        for name, one in self.runtime.instances.items():
            if one.phase == Phase.STARTING:
                self.runtime.instances[name] = replace(one, phase=Phase.RUNNING, address=self.runtime.address)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.runtime.away = True
        yield
        self.runtime.away = False


class TestProcesses(Contract):
    @pytest.fixture
    def place(self, new_process: New, tmp_path: Path) -> Place:
        return Processes(new_process, tmp_path)


class TestFakes(Contract):
    @pytest.fixture(params=[Obedient, ObedientForgetful])
    def place(self, request: pytest.FixtureRequest) -> Place:
        return Fakes(request.param)
