"""What the engines that are programs of their own are told, and how their parent ends them."""

import json
import os
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from serving import child, llamacpp, vllm
from serving.config import (
    DATA_TYPES,
    KV_CACHE_TYPES,
    LOAD_FORMATS,
    LOG_LEVELS,
    QUANTIZATIONS,
    TOKENIZER_TYPES,
    EngineConfig,
    Options,
    Refusal,
)
from tests.wait import until


def pairs(words: list[str]) -> dict[str, str]:
    """Flags by name; a switch has an empty value."""
    found: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            found[word] = "" if following.startswith("--") else following
    return found


def vllm_flags(options: dict[str, Any] | None = None, **settings: Any) -> dict[str, str]:
    config = EngineConfig("vllm", "/opt/model", "demo", options=Options(**(options or {})), **settings)
    return pairs(vllm.flags(config, 8000))


@pytest.mark.parametrize(
    ("settings", "options", "flag", "value"),
    [
        ({}, {}, "--served-model-name", "demo"),
        ({}, {}, "--port", "8000"),
        ({"host": "0.0.0.0"}, {}, "--host", "0.0.0.0"),
        ({"context_length": 4096}, {}, "--max-model-len", "4096"),
        ({"parallel": 16}, {}, "--max-num-seqs", "16"),
        ({}, {"data_type": "bfloat16"}, "--dtype", "bfloat16"),
        ({}, {"data_type": "float16", "load_format": "fp32"}, "--dtype", "float32"),
        ({}, {"data_type": "int8"}, "--dtype", "auto"),
        ({"kv_cache_type": "q8_0"}, {}, "--kv-cache-dtype", "fp8"),
        ({"kv_cache_type": "f16"}, {}, "--kv-cache-dtype", "auto"),
        ({}, {"load_format": "int8"}, "--quantization", "fp8"),
        ({}, {"quantization": "dynamic"}, "--quantization", "fp8"),
        ({}, {}, "--load-format", "safetensors"),
        ({}, {"allow_pickle": True}, "--load-format", "auto"),
        ({"gpus": 2}, {}, "--tensor-parallel-size", "2"),
        ({"log_level": "WARNING"}, {}, "--uvicorn-log-level", "warning"),
    ],
)
def test_vllm_is_told_each_setting(
    settings: dict[str, Any], options: dict[str, Any], flag: str, value: str
) -> None:
    assert vllm_flags(options, **settings)[flag] == value


# What vLLM 0.33, the version of our image, takes: its flags, and the values of those that have a list.
VLLM_TAKES: dict[str, set[str] | None] = {
    "--served-model-name": None,
    "--host": None,
    "--port": None,
    "--max-model-len": None,
    "--max-num-seqs": None,
    "--tensor-parallel-size": None,
    "--generation-config": None,
    "--disable-uvicorn-access-log": {""},
    "--dtype": {"auto", "half", "float16", "bfloat16", "float", "float32"},
    "--kv-cache-dtype": {"auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"},
    "--load-format": {"auto", "hf", "safetensors", "pt", "npcache"},
    "--quantization": {"fp8", "compressed-tensors", "torchao", "gptq", "awq", "online"},
    "--uvicorn-log-level": {"critical", "error", "warning", "info", "debug", "trace"},
}


@pytest.mark.parametrize(
    "options",
    [
        *({"load_format": each} for each in LOAD_FORMATS),
        *({"data_type": each} for each in DATA_TYPES),
        *({"quantization": each} for each in QUANTIZATIONS),
        *({"tokenizer_type": each} for each in TOKENIZER_TYPES),
        {"allow_pickle": True},
    ],
    ids=str,
)
def test_whatever_is_set_vllm_knows_what_it_is_told(options: dict[str, Any]) -> None:
    for kv_cache_type, level in product(KV_CACHE_TYPES, LOG_LEVELS):
        given = vllm_flags(options, kv_cache_type=kv_cache_type, log_level=level)
        assert not set(given) - set(VLLM_TAKES)
        for flag, value in given.items():
            takes = VLLM_TAKES[flag]
            assert takes is None or value in takes, (flag, value)


def test_vllm_keeps_a_models_own_weights_where_nothing_is_asked() -> None:
    assert "--quantization" not in vllm_flags()


@pytest.mark.parametrize(
    ("settings", "flag", "value"),
    [
        ({"context_length": 1024, "parallel": 3}, "--ctx-size", "3072"),
        ({"kv_cache_type": "q8_0"}, "--cache-type-v", "q8_0"),
        ({"gpus": 1}, "--n-gpu-layers", "all"),
        ({}, "--n-gpu-layers", "0"),
        ({"context_shift": True}, "--context-shift", ""),
        ({}, "--no-context-shift", ""),
        ({}, "--reuse-port", ""),
        ({"parallel": 4}, "--threads-http", "14"),
        ({"log_level": "ERROR"}, "--log-verbosity", "1"),
        ({}, "--cache-ram", "0"),
        ({}, "--no-slots", ""),
    ],
)
def test_llama_server_is_told_what_the_wheel_is_told(settings: dict[str, Any], flag: str, value: str) -> None:
    config = EngineConfig("llama.cpp", "/opt/model/a.gguf", "demo", **settings)
    assert pairs(llamacpp.flags(config, 8000))[flag] == value


def folder(tmp_path: Path, **settings: Any) -> str:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "tokenizer.json").touch()
    return str(tmp_path)


def test_vllm_quantizes_nothing_statically_itself(tmp_path: Path) -> None:
    config = EngineConfig("vllm", folder(tmp_path), "demo", options=Options(quantization="static"))
    with pytest.raises(Refusal, match="quantization_config") as caught:
        vllm.check_model(config)
    assert caught.value.code == 65
    vllm.check_model(
        EngineConfig("vllm", folder(tmp_path, quantization_config={}), "demo", options=config.options)
    )


def test_vllm_reads_no_pickles_unless_they_are_allowed(tmp_path: Path) -> None:
    (Path(folder(tmp_path)) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(Refusal, match="no safetensors"):
        vllm.check_model(EngineConfig("vllm", str(tmp_path), "demo"))
    vllm.check_model(EngineConfig("vllm", str(tmp_path), "demo", options=Options(allow_pickle=True)))


def test_vllm_needs_a_tokenizer(tmp_path: Path) -> None:
    config = EngineConfig("vllm", folder(tmp_path), "demo")
    (tmp_path / "tokenizer.json").rename(tmp_path / "tekken.json")
    vllm.check_model(config)
    (tmp_path / "tekken.json").unlink()
    with pytest.raises(Refusal, match="no tokenizer") as caught:
        vllm.check_model(config)
    assert caught.value.code == 65


def test_vllm_needs_a_folder_and_its_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="a folder") as caught:
        vllm.serve(EngineConfig("vllm", str(tmp_path / "none"), "demo"), None)
    assert caught.value.code == 66
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refusal, match="not installed") as caught:
        vllm.serve(EngineConfig("vllm", folder(tmp_path), "demo"), None)
    assert caught.value.code == 72


# As vLLM 0.32 writes it, here with two requests at work and one that waits.
VLLM_METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="demo"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="demo"} 1.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="demo",reason="capacity"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="demo",reason="deferred"} 0.0
"""


def test_requests_are_counted_as_the_engines_count_them() -> None:
    assert vllm.in_flight(VLLM_METRICS) == 3
    assert llamacpp.in_flight("llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\n") == 3


# How starts of vLLM 0.32 ended, cut to what counts: each of its processes tells the cause in its own words.
NO_MEMORY = """\
(APIServer pid=8) WARNING 11-28 17:33:11 [vllm.py:725] Model Runner V2 requires Triton; using the V1 model runner.
(Worker pid=9) ERROR 11-28 17:33:53 [multiproc_executor.py:953] WorkerProc failed to start.
(Worker pid=9) ERROR 11-28 17:33:53 [multiproc_executor.py:953] Traceback (most recent call last):
(Worker pid=9) ERROR 11-28 17:33:53 [multiproc_executor.py:953]     raise ValueError(
(Worker pid=9) ERROR 11-28 17:33:53 [multiproc_executor.py:953] ValueError: To serve at least one request \
with the model's max seq len (8192), (4.0 GiB KV cache is needed, which is larger than the available KV cache \
memory (1.0 GiB). Try increasing `gpu_memory_utilization`.
(EngineCore pid=9) Exception: WorkerProc initialization failed due to an exception in a background process.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
TOO_LONG = """\
  File "vllm/config/model.py", line 1, in validate
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (9999) is greater than the derived max_model_len \
(max_position_embeddings=2048.0). To allow overriding this maximum, set VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. \
[type=value_error, input_value=ArgsKwargs(()), input_type=ArgsKwargs]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
NO_SUCH_TYPE = """\
usage: vllm serve [model_tag] [options]
vllm serve: error: argument --dtype: invalid choice: 'float8' (choose from auto, half)
"""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            NO_MEMORY,
            "ValueError: To serve at least one request with the model's max seq len (8192), (4.0 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (1.0 GiB).",
        ),
        (
            TOO_LONG,
            "ValidationError: User-specified max_model_len (9999) is greater than the derived max_model_len "
            "(max_position_embeddings=2048.0).",
        ),
        (NO_SUCH_TYPE, "error: argument --dtype: invalid choice: 'float8' (choose from auto, half)"),
        ("INFO 11-28 17:33:11 [x.py:1] all is well\n", ""),
    ],
)
def test_the_cause_of_an_end_is_found_among_what_every_process_says(said: str, why: str) -> None:
    assert vllm.cause(said.splitlines()) == why


@pytest.mark.parametrize(("said", "code"), [(NO_MEMORY, 1), (TOO_LONG, 65), (NO_SUCH_TYPE, 65)])
def test_the_last_word_of_a_start_that_failed_is_its_cause(tmp_path: Path, said: str, code: int) -> None:
    program, model = tmp_path / "vllm", tmp_path / "model"
    model.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nprint('out')\nsys.stderr.write({said!r})\nsys.exit(1)\n")
    program.chmod(0o755)
    config = {"engine": "vllm", "model": folder(model), "alias": "demo"}
    variables = {"PATH": str(tmp_path), "TIR_CONFIG": json.dumps(config)}
    done = subprocess.run(
        [sys.executable, "-m", "serving"], env=variables, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (code, "out\n")
    assert done.stderr == f"{said}serving: vLLM ended: {vllm.cause(said.splitlines())}\n"


# A program that behaves like an engine: it serves metrics, and cuts what it has in flight when it is told to end.
# It shares its port only when it is told so: vLLM never does.
PROGRAM = """
import http.server, os, pathlib, sys
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        busy = os.path.exists("busy")
        body = f'vllm:num_requests_running{{m="d"}} {int(busy)}.0\\nllamacpp:requests_processing {int(busy)}\\n'
        self.send_response(200); self.end_headers(); self.wfile.write(body.encode())
        pathlib.Path("looked").touch()
    def log_message(self, *_): pass
http.server.HTTPServer.handle_error = lambda *_: None  # a look that waited too long and left
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer.allow_reuse_port = "--reuse-port" in sys.argv
server = http.server.HTTPServer(("127.0.0.1", port), Metrics)
pathlib.Path("argv").write_text(" ".join(sys.argv))
server.serve_forever()
"""


@pytest.mark.parametrize(
    ("engine", "name", "flag"),
    [("vllm", "vllm", "--served-model-name demo"), ("llama.cpp", "llama-server", "--alias demo")],
)
def test_a_program_is_ended_only_when_it_is_idle(tmp_path: Path, engine: str, name: str, flag: str) -> None:
    model, program = tmp_path / "model", tmp_path / name
    model.mkdir()
    folder(model)
    (model / "a.gguf").write_bytes(b"GGUF")
    program.write_text(f"#!{sys.executable}\n{PROGRAM}")
    program.chmod(0o755)
    (tmp_path / "busy").touch()
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('no wheel here')")
    config = {"engine": engine, "model": str(model if engine == "vllm" else model / "a.gguf"), "alias": "demo"}
    path, code = f"{tmp_path}:{os.environ['PATH']}", f"{tmp_path}:{os.getcwd()}"
    variables = {"PATH": path, "PYTHONPATH": code, "TIR_CONFIG": json.dumps(config)}
    process = subprocess.Popen(
        [sys.executable, "-m", "serving"], cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True
    )
    with process:
        until((tmp_path / "argv").exists, what="a program that serves")
        assert flag in (tmp_path / "argv").read_text()
        process.send_signal(signal.SIGTERM)
        until((tmp_path / "looked").exists, what="a look at what is in flight")
        assert process.poll() is None
        (tmp_path / "busy").unlink()
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == "serving: SIGTERM: finishing what is in flight\n"


STUBBORN = """
import signal, pathlib
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("up").touch()
while True:
    signal.pause()
"""
# Noted here: on a busy machine the engine itself may be killed before it could note anything.
PARENT = """
import pathlib, subprocess, sys
from serving import child
class Engine(subprocess.Popen):
    def terminate(self):
        super().terminate()
        pathlib.Path("told").touch()
subprocess.Popen = Engine
child.DRAIN_SECONDS, child.END_SECONDS = 0.5, 0.5
sys.exit(child.run([sys.executable, "-c", sys.argv[1]], lambda: 1))
"""


def test_an_engine_that_does_not_end_when_told_is_killed(tmp_path: Path) -> None:
    variables = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", PARENT, STUBBORN]
    with subprocess.Popen(command, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True) as process:
        until((tmp_path / "up").exists, what="an engine")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    assert (tmp_path / "told").exists()
    assert said.splitlines()[-1] == "serving: the engine did not end when told: killed"


@pytest.mark.parametrize(
    ("words", "code"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_an_engine_that_ends_by_itself_passes_its_code_on(words: str, code: int) -> None:
    program = f"from serving import child; raise SystemExit(child.run([{sys.executable!r}, '-c', {words!r}], int))"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == code


def test_an_engine_that_answers_no_more_has_nothing_in_flight() -> None:
    assert child.counting("http://127.0.0.1:9", vllm.in_flight)() == 0
