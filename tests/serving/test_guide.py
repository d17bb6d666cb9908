"""docs/model-py.md does what it says: its models, its commands, its answers."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.serving.running import Server, running

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "model-py.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
CURL = re.compile(r"curl localhost:\d+(\S+)(?: -d '(.*)')?$")


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def settings(containing: str) -> dict[str, Any]:
    """The config of the command with this in it, less what a test decides itself."""
    command = next(text for text in blocks("bash") if containing in text)
    found = re.search(r"TIR_CONFIG='(.*?)' ", command, re.DOTALL)
    assert found is not None
    given: dict[str, Any] = json.loads(found[1])
    return {name: value for name, value in given.items() if name not in {"model", "alias", "port", "cache"}}


def asked(server: Server, command: str) -> Any:
    found = CURL.match(command.strip())
    assert found is not None, command
    return server.ask(found[1], json.loads(found[2]) if found[2] else None)[1]


def answered(path: str) -> list[tuple[str, Any]]:
    """Each command for this path that is followed by its answer."""
    pairs = itertools.pairwise(BLOCKS)
    return [
        (command, json.loads(answer))
        for (kind, command), (next_kind, answer) in pairs
        if kind == "bash" and next_kind == "json" and f"{path} " in command
    ]


def test_the_first_model_answers_as_shown(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(blocks("python")[0])
    with running(tmp_path / "run", tmp_path, **settings("my-model")) as server:
        server.until_ready()
        for command, answer in answered("8000/predict"):
            assert asked(server, command) == answer
        assert server.metric('batch_size_count{kind="predict"}') > 0


def test_the_chat_answers_as_shown(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(blocks("python")[1])
    command = next(text for text in blocks("bash") if "chat/completions" in text)
    with running(tmp_path / "run", tmp_path) as server:
        answer = asked(server.until_ready(), command)
    said = json.dumps(answer, separators=(",", ":"))
    for shown in re.findall(r'`("content".*?|"usage".*?)`', GUIDE.read_text()):
        assert shown in said


def test_the_onnx_file_answers_and_is_quantized_as_shown(tmp_path: Path) -> None:
    making = next(text for text in blocks("bash") if "make_graph" in text)
    script = making.split("<<'END'\n")[1].split("\nEND\n")[0]
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)
    with running(tmp_path / "run", tmp_path / "my-net", **settings("calibration_dataset")) as server:
        server.until_ready()
        for command, answer in answered("8001/predict"):
            assert asked(server, command) == answer
        shown = server.ask("/metadata")[1]
    facts = next(text for text in blocks("json") if '"batched"' in text)
    assert json.loads("{" + facts + "}").items() <= shown.items()
    assert shown["quantization"]["agreement"] >= 0.9
