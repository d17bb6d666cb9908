"""`python -m endpoints.sources`: what fetches a model where no console runs."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endpoints.sources import store as storage
from endpoints.sources.__main__ import main
from tests.endpoints.sources.conftest import LARGE
from tests.hub import Fault, Hub, Repo
from tests.wait import until

FILES = ["config.json", "weights/a.gguf"]


Run = Callable[[Path, Path], tuple[int, list[dict[str, Any]]]]


class Reaches:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


@pytest.fixture
def spec(hub: Hub, tmp_path: Path) -> Path:
    hub.repos["lab/folder"] = Repo({"config.json": b"{}", "weights/a.gguf": LARGE}, private=True)
    hub.repos["lab/evil"] = Repo({"weights.pkl": pickle.dumps(Reaches())})
    hub.tokens["hf_member"].update({"lab/folder"})
    return written(hub, tmp_path, model_id="lab/folder", files=FILES)


def written(hub: Hub, folder: Path, **source: Any) -> Path:
    (folder / "credential").write_text("hf_member\n")
    file = folder / "source.json"
    asked = {"source": {"kind": "huggingface", "revision": "main", "hub": hub.url} | source}
    file.write_text(json.dumps(asked | {"credential_file": str(folder / "credential")}))
    return file


def command(spec: Path, into: Path) -> list[str]:
    return [sys.executable, "-m", "endpoints.sources", str(spec), str(into)]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(spec, into)`: the exit code and the lines."""

    def run(spec: Path, into: Path) -> tuple[int, list[dict[str, Any]]]:
        code = main([str(spec), str(into)])
        said = capsys.readouterr()
        assert said.err == ""
        return code, [json.loads(line) for line in said.out.splitlines()]

    return run


def test_the_files_lie_in_the_folder_and_progress_is_told(run: Run, spec: Path, tmp_path: Path) -> None:
    code, lines = run(spec, tmp_path / "model")
    assert code == 0
    assert lines[-1] == {"path": str(tmp_path / "model/config.json")}
    assert lines[-2] == {"done": len(LARGE) + 2, "total": len(LARGE) + 2}
    assert (tmp_path / "model/weights/a.gguf").read_bytes() == LARGE
    there = {
        str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*") if path.is_file()
    }
    assert there == {*FILES, ".tir-fetched", "locks/tir-fetched.lock"}


def test_a_second_run_asks_nobody(run: Run, spec: Path, hub: Hub, tmp_path: Path) -> None:
    assert run(spec, tmp_path / "model")[0] == 0
    asked = len(hub.requests)
    assert run(spec, tmp_path / "model") == (0, [{"path": str(tmp_path / "model/config.json")}])
    assert len(hub.requests) == asked
    (tmp_path / "model/weights/a.gguf").unlink()
    assert run(spec, tmp_path / "model")[0] == 0
    assert (tmp_path / "model/weights/a.gguf").read_bytes() == LARGE


def test_what_was_killed_goes_on_where_it_ended(run: Run, spec: Path, hub: Hub, tmp_path: Path) -> None:
    hub.fault(Fault("/cdn/", pause=0.5))
    process = subprocess.Popen(command(spec, tmp_path / "model"), stdout=subprocess.DEVNULL)
    partial = tmp_path / "model/.tir/partial"
    until(lambda: any(storage.size_of(file) > 1000 for file in partial.glob("*")), what="bytes to come")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run(spec, tmp_path / "model")[0] == 0
    assert (tmp_path / "model/weights/a.gguf").read_bytes() == LARGE
    assert hub.asked("/cdn/")[-1].headers["Range"].startswith("bytes=")


def test_a_failure_is_one_clear_sentence(run: Run, spec: Path, hub: Hub, tmp_path: Path) -> None:
    asked = json.loads(spec.read_text())
    del asked["credential_file"]
    spec.write_text(json.dumps(asked))
    code, lines = run(spec, tmp_path / "model")
    assert code == 1
    assert lines[-1]["code"] == "not_found"
    assert "lab/folder" in lines[-1]["error"]
    assert run(tmp_path / "nothing.json", tmp_path / "model")[0] == 1


def test_a_pickle_that_reaches_for_the_machine_is_not_handed_over(
    run: Run, hub: Hub, spec: Path, tmp_path: Path
) -> None:
    evil = written(hub, tmp_path, model_id="lab/evil", files=["weights.pkl"])
    code, lines = run(evil, tmp_path / "model")
    assert (code, lines[-1]["code"]) == (1, "unsafe")
    assert not (tmp_path / "model/weights.pkl").exists()
