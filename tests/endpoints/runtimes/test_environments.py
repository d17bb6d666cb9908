"""Local environments: built once for all that need the same, whole or not there, and said why when it fails."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import psutil
import pytest

from endpoints.runtimes import environments
from endpoints.runtimes.base import Command, Rejected
from endpoints.runtimes.environments import Environments
from tests.wait import until


def wheel(folder: Path, name: str) -> None:
    """A package of one line, as an index would have it."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "SAID = 'here'\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


ENDLESS = """
import os, pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path({marker!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
child.wait()
"""


def endless(folder: Path, marker: Path) -> None:
    """A package of sources whose build never ends, and says nothing."""
    made = folder / "endless_part-1.0"
    made.mkdir()
    (made / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: endless-part\nVersion: 1.0\n")
    (made / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (made / "backend.py").write_text(ENDLESS.format(marker=str(marker)))
    with tarfile.open(folder / "endless_part-1.0.tar.gz", "w:gz") as file:
        file.add(made, made.name)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environments:
    lists, index = tmp_path / "lists", tmp_path / "index"
    lists.mkdir()
    index.mkdir()
    (lists / "python.txt").write_text("engine_part\n")
    wheel(index, "engine_part")
    wheel(index, "own_part")
    monkeypatch.setattr(environments, "LISTS", lists)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    return Environments(tmp_path / "environments")


def wanted(requirements: str = "own_part\n", engine: str = "python") -> Command:
    return Command(engine=engine, model="", alias="m", requirements=requirements)


def test_an_environment_holds_the_engine_and_what_the_model_asks_for(built: Environments) -> None:
    lines: list[str] = []
    assert built.python_of(wanted()) is None
    assert built.build(wanted(), lines.append) == "Environment for python built."
    python = built.python_of(wanted())
    assert python is not None
    asked = "import engine_part, own_part; print(own_part.SAID)"
    assert subprocess.check_output([python, "-c", asked], text=True).strip() == "here"
    assert any("own-part" in line for line in lines), lines
    compiled = {path.name.partition(".")[0] for path in python.parents[1].rglob("*.pyc")}
    assert compiled >= {"engine_part", "own_part"}, "else every start of an instance compiles them"
    assert built.build(wanted(), lines.append) == "The environment is there already."
    assert built.python_of(wanted("")) is None, "another model's needs are another environment"


def test_what_cannot_be_had_is_said_in_the_installers_words(built: Environments) -> None:
    with pytest.raises(Rejected, match=r"no-such-part"):
        built.build(wanted("no-such-part==3\n"), lambda _: None)
    assert built.python_of(wanted("no-such-part==3\n")) is None
    with pytest.raises(Rejected, match=r"vllm can't run as a local process"):
        built.build(wanted(engine="vllm"), lambda _: None)


def test_a_build_that_is_cancelled_leaves_nothing_that_counts(built: Environments) -> None:
    def stop(line: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        built.build(wanted(), stop)
    assert built.python_of(wanted()) is None
    built.build(wanted(), lambda _: None)
    assert built.python_of(wanted()) is not None


class Cancelled(Exception):
    pass


def test_a_build_that_says_nothing_can_be_cancelled_and_leaves_no_process(
    built: Environments, tmp_path: Path
) -> None:
    marker = tmp_path / "at-work"
    endless(tmp_path / "index", marker)

    def report(line: str) -> None:
        if marker.exists() and marker.read_text():
            raise Cancelled

    with pytest.raises(Cancelled):
        built.build(wanted("endless_part\n"), report)
    pids = [int(pid) for pid in marker.read_text().split()]
    until(lambda: not any(map(psutil.pid_exists, pids)), what="the end of what the installer had started")


def test_who_waits_for_a_build_can_be_cancelled(built: Environments) -> None:
    home = built._home(wanted())
    home.parent.mkdir()

    def report(line: str) -> None:
        raise Cancelled

    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Cancelled):
            built.build(wanted(), report)


HALF_BUILT = """
import sys
from pathlib import Path
from endpoints.runtimes.environments import Environments, _run

with Environments(Path(sys.argv[1]))._locked("it", print) as lock:
    _run(["sh", "-c", f"echo at work; read _ < {sys.argv[2]}"], lambda line: print(line, flush=True), lock)
"""


def test_an_installer_that_outlives_its_worker_is_waited_for(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    argv = [sys.executable, "-c", HALF_BUILT, str(tmp_path), str(gate)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == "at work\n"
        worker.kill()
    with (tmp_path / "it.lock").open("a") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gate.write_text("\n")  # the installer goes on, and ends
        fcntl.flock(lock, fcntl.LOCK_EX)
