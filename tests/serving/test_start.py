"""What stands between a command line and a running engine: every way to fail has its code and its sentence."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving import __main__ as serving
from serving import llamacpp, ports
from serving.config import EngineConfig, Refusal


def run(tmp_path: Path, **config: Any) -> tuple[int, str]:
    """Exit code and last line of `python -m serving` with this config."""
    code, said = run_whole(tmp_path, **config)
    return code, said.splitlines()[-1]


def run_whole(tmp_path: Path, **config: Any) -> tuple[int, str]:
    """Exit code and all of stderr."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"engine": "llama.cpp", "alias": "demo"} | config))
    done = subprocess.run(
        [sys.executable, "-m", "serving", "--config", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


def a_gguf(tmp_path: Path) -> str:
    """A file that begins like a model and then is none."""
    model = tmp_path / "broken.gguf"
    model.write_bytes(b"GGUF" + b"\0" * 64)
    return str(model)


def test_a_wrong_config_is_64(tmp_path: Path) -> None:
    code, last = run(tmp_path, model="x", context_length=0)
    assert (code, last) == (64, "serving: context_length must be between 1 and 16777216, not 0")


def test_a_file_that_is_no_gguf_is_65(tmp_path: Path) -> None:
    model = tmp_path / "notes.txt"
    model.write_text("not a model")
    code, last = run(tmp_path, model=str(model))
    assert code == 65
    assert "is not a GGUF file" in last


def test_a_missing_model_is_66(tmp_path: Path) -> None:
    code, last = run(tmp_path, model=str(tmp_path / "none.gguf"))
    assert code == 66
    assert "No such file" in last


def test_a_taken_port_is_69(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, last = run(tmp_path, model=a_gguf(tmp_path), port=port)
    assert (code, last) == (69, f"serving: port {port} on 127.0.0.1 is taken")


@pytest.mark.model
def test_a_gguf_that_the_engine_cannot_load_is_65(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    code, said = run_whole(tmp_path, model=a_gguf(tmp_path))
    assert code == 65
    assert "serving: llama.cpp cannot load this model file" in said


def test_an_engine_that_is_not_installed_is_72(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(Refusal, match="not installed") as caught:
        llamacpp.run(EngineConfig("llama.cpp", "/m.gguf", "demo"), 1)
    assert caught.value.code == 72


@pytest.mark.parametrize("argv", [[], ["--config"], ["--help"], ["--config", "a", "--port", "1"]])
def test_a_command_line_that_is_wrong_shows_the_usage(argv: list[str]) -> None:
    with pytest.raises(Refusal, match="usage") as caught:
        serving.arguments(argv)
    assert caught.value.code == 64


def test_an_address_this_machine_does_not_have_is_64() -> None:
    with pytest.raises(Refusal, match="cannot listen") as caught:
        ports.held("192.0.2.1", 0)
    assert caught.value.code == 64


def test_a_chosen_port_is_nobody_elses_until_the_engine_binds() -> None:
    first, second = ports.held("127.0.0.1", 0), ports.held("127.0.0.1", 0)
    assert first is not None
    assert second is not None
    with first, second:
        assert first.getsockname()[1] != second.getsockname()[1]
        with pytest.raises(Refusal, match="taken"):
            ports.held("127.0.0.1", first.getsockname()[1])


def test_an_address_is_published_whole(tmp_path: Path) -> None:
    ports.publish(str(tmp_path / "address"), "127.0.0.1", 8081)
    assert (tmp_path / "address").read_text() == "http://127.0.0.1:8081\n"
    ports.publish(str(tmp_path / "address"), "::1", 8082)
    assert (tmp_path / "address").read_text() == "http://[::1]:8082\n"
    assert os.listdir(tmp_path) == ["address"]


def test_every_sequence_gets_the_promised_length() -> None:
    pytest.importorskip("xllamacpp")
    given = llamacpp.params(
        EngineConfig("llama.cpp", "/m.gguf", "demo", context_length=1024, parallel=3, threads=2), 8081
    )
    assert (given.n_ctx, given.n_parallel, given.kv_unified) == (3072, 3, False)
    assert (given.cpuparams.n_threads, given.cpuparams_batch.n_threads) == (2, 2)


def test_an_instance_keeps_to_its_planned_memory_and_shows_nobody_elses_prompts() -> None:
    pytest.importorskip("xllamacpp")
    given = llamacpp.params(EngineConfig("llama.cpp", "/m.gguf", "demo"), 8081)
    assert given.cache_ram_mib == 0
    assert not given.endpoint_slots
    assert not given.ui
    assert given.endpoint_metrics
    assert given.cors_origins == ""


def test_idle_probes_cannot_take_every_connection() -> None:
    pytest.importorskip("xllamacpp")
    given = llamacpp.params(EngineConfig("llama.cpp", "/m.gguf", "demo", parallel=8), 8081)
    assert given.n_threads_http >= 2 * 8


class Engine:
    """Answers the metrics text with these counts, one after the other, the last one for ever."""

    def __init__(self, *busy: int) -> None:
        self.busy = list(busy)

    def handle_metrics(self) -> str:
        now = self.busy.pop(0) if len(self.busy) > 1 else self.busy[0]
        return f"# TYPE x gauge\nllamacpp:requests_processing {now}\nllamacpp:requests_deferred 0\n"


def test_a_drain_waits_for_what_is_in_flight() -> None:
    engine = Engine(2, 1, 0, 1, 0, 0)
    assert llamacpp._drained(engine, every=0)
    assert engine.busy == [0]


def test_a_drain_gives_up_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llamacpp, "DRAIN_SECONDS", 0.0)
    assert not llamacpp._drained(Engine(1), every=0)
