"""The Dockerfiles agree with what they carry; tests/docker builds and runs some of them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving import config, healthy

ROOT = Path(__file__).resolve().parents[2]
SERVING = sorted(
    path for path in (ROOT / "deploy" / "images").glob("*/Dockerfile") if path.parent.name != "console"
)


def test_every_engine_has_an_image() -> None:
    engines = {json.loads(variable(path, "TIR_CONFIG"))["engine"] for path in SERVING}
    assert engines == set(config.ENGINES)


def variable(path: Path, name: str) -> str:
    found = re.search(rf"{name}='(.*)'", path.read_text())
    assert found is not None
    return found[1]


@pytest.mark.parametrize("path", SERVING, ids=lambda path: path.parent.name)
def test_an_image_runs_as_nobody_says_its_health_and_has_a_config_that_is_right(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = path.read_text()
    assert re.search(r"^USER 65532:65532$", text, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*serving.healthy", text, re.MULTILINE)
    assert "org.opencontainers.image.title" in text
    for base in re.findall(r"^ARG (?:BASE|BUILD|RUNTIME)=(\S+)", text, re.MULTILINE):
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", base), f"{base} is not pinned"
    for named in re.findall(r"/requirements/(\S+)", text):
        assert (ROOT / "serving" / "requirements" / named).is_file()
    monkeypatch.setenv("MODEL_PATH", "/opt/model")
    given = config.parsed(variable(path, "TIR_CONFIG"))
    assert (given.model, given.host, given.port) == ("/opt/model", "0.0.0.0", 8000)


def test_nothing_that_answers_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIR_CONFIG", '{"port": 9}')
    assert not healthy.healthy()


FIRST = """
import os, signal, sys, time
from serving import first
first.stand_in()
if sys.argv[1] == "end":
    sys.exit(7)
signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
print("up", flush=True)
time.sleep(60)
"""


def test_a_first_process_ends_as_its_child_does_and_passes_signals_on() -> None:
    command = [sys.executable, "-c", FIRST]
    assert subprocess.run([*command, "end"], check=False, timeout=30, cwd=ROOT).returncode == 7
    with subprocess.Popen([*command, "wait"], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(30) == 5
