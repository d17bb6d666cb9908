"""The Dockerfiles agree with what they carry; tests/docker builds and runs some of them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from serving import config, healthy

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "deploy" / "images"
PACKAGED = tuple(engine for engine in config.ENGINES if engine != "vllm")
SERVING = [(IMAGES / "serving" / "Dockerfile", engine) for engine in PACKAGED]
SERVING += [(IMAGES / "vllm" / "Dockerfile", "vllm"), (IMAGES / "llama.cpp-cuda" / "Dockerfile", "llama.cpp")]


@pytest.mark.parametrize(("path", "engine"), SERVING, ids=lambda given: str(given).removeprefix(str(IMAGES)))
def test_an_image_runs_as_nobody_says_its_health_and_has_a_config_that_is_right(
    path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = path.read_text()
    assert re.search(r"^USER 65532:65532$", text, re.MULTILINE)
    assert re.search(r"^ +USER=", text, re.MULTILINE), "libraries name their caches after who runs them"
    assert re.search(r"^HEALTHCHECK .*serving.healthy", text, re.MULTILINE)
    assert "org.opencontainers.image.title" in text
    for base in re.findall(r"^ARG (?:BASE|BUILD|RUNTIME)=(\S+)", text, re.MULTILINE):
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", base), f"{base} is not pinned"
    found = re.search(r"TIR_CONFIG=(.*)", text)
    assert found is not None
    (given,) = shlex.split(found[1])
    monkeypatch.setenv("MODEL_PATH", "/opt/model")
    read = config.parsed(given.replace("${ENGINE}", engine))
    assert (read.engine, read.model, read.host, read.port) == (engine, "/opt/model", "0.0.0.0", 8000)


@pytest.mark.parametrize("engine", PACKAGED)
def test_every_engine_has_its_list_of_packages(engine: str) -> None:
    assert (ROOT / "serving" / "requirements" / f"{engine}.txt").is_file()


def test_nothing_that_answers_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIR_CONFIG", '{"port": 9}')
    assert not healthy.healthy()


FIRST = """
import signal, sys
from serving import first
first.stand_in()
if sys.argv[1] == "end":
    sys.exit(7)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("up", flush=True)
if signal.sigtimedwait([signal.SIGTERM], 60):
    sys.exit(5)
"""


def test_a_first_process_ends_as_its_child_does_and_passes_signals_on() -> None:
    command = [sys.executable, "-c", FIRST]
    assert subprocess.run([*command, "end"], check=False, timeout=30, cwd=ROOT).returncode == 7
    with subprocess.Popen([*command, "wait"], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(30) == 5
