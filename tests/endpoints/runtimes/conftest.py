"""A process runtime in a folder of its own, with a stub for an engine, and everything ended afterwards."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoints.runtimes import scan
from endpoints.runtimes.base import Command, Workload
from endpoints.runtimes.limits import Group
from endpoints.runtimes.process import ProcessRuntime
from tests.wait import until

STUB = (sys.executable, "-I", "-S", str(Path(__file__).with_name("stub_engine.py")))
COMMAND = Command(engine="llama.cpp", model="/models/tiny.gguf", alias="demo")


def workload(replicas: int = 1, **changes: Any) -> Workload:
    wanted = Workload(
        owner="endpoint-7",
        revision=1,
        replicas=replicas,
        command=COMMAND,
        cpu_millis=500,
        memory_bytes=256 << 20,
    )
    return replace(wanted, **changes)


def processes(runtime: ProcessRuntime, name: str) -> scan.Live:
    """The processes of this instance now."""
    return scan.live(runtime.data)[name]


@pytest.fixture
def new_process(tmp_path: Path) -> Iterator[Callable[..., ProcessRuntime]]:
    """Makes process runtimes, all over the same folder unless told otherwise."""
    made: list[ProcessRuntime] = []

    def make(folder: str = "data", **options: Any) -> ProcessRuntime:
        made.append(ProcessRuntime(tmp_path / folder, engine=STUB, **options))
        return made[-1]

    yield make
    for runtime in made:
        end(runtime)


@pytest.fixture
def process(new_process: Callable[..., ProcessRuntime]) -> ProcessRuntime:
    return new_process()


def end(runtime: ProcessRuntime) -> None:
    """Kill what still lives of this installation, and take its cgroups away."""

    def gone() -> bool:
        live = scan.live(runtime.data)
        for one in live.values():
            for pid in (*one.engines, *([one.supervisor] if one.supervisor else [])):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        runtime._reap()
        return not live

    until(gone, what="an end of every instance")
    if isinstance(runtime.limits, Group):
        for tree in {runtime.limits.memory, runtime.limits.cpu} - {None}:
            for child in [*Path(str(tree)).glob("*/"), Path(str(tree))]:
                with suppress(OSError):
                    child.rmdir()
