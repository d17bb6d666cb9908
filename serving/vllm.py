"""vLLM's own server, run with a revision's settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

from serving import child, ports
from serving.config import EngineConfig, Refusal
from serving.heard import Heard

IN_FLIGHT = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{.*\})? (\S+)", re.MULTILINE)
# A line of one of its processes, without who says it: "(EngineCore pid=7) ERROR 11-28 17:33:53 [core.py:1510] …".
SAYS = re.compile(r"^(?:\([^)]* pid=\d+\) ?)?(?:[A-Z]+ [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
RAISED = re.compile(r"(?:\w+\.)*(\w*(?:Error|Exception|Missing))(?:: (.*))?|vllm(?: \w+)?: (error): (.*)")
DETAIL = re.compile(r" *\[type=.*| *\(type=.*")  # how pydantic ends what it says
SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")  # the first says it, the others advise on flags that we set
NEVER_MENDS = ("ValidationError", "error")  # its own checks of flags and model, before anything is loaded
TOKENIZERS = ("tokenizer*", "*.model", "*.tiktoken", "tekken.json", "vocab*")
DTYPES = {"fp32": "float32", "fp16": "float16", "int8": "auto"}


def serve(config: EngineConfig, address_file: str | None) -> int:
    """Take a port, say so, and run `vllm serve`; the exit code. Refusal 72 if it is not installed."""
    check_model(config)
    program = shutil.which("vllm")
    if program is None:
        raise Refusal(72, "the vLLM engine is not installed here: there is no program `vllm`")
    holder = ports.held(config.host, config.port, socket.SO_REUSEADDR)  # vLLM sets no other option
    port = holder.getsockname()[1] if holder else config.port
    if address_file:
        ports.publish(address_file, config.host, port)
    busy = child.counting(ports.address(config.host, port), in_flight)
    environ = {"VLLM_LOGGING_LEVEL": config.log_level, "VLLM_DO_NOT_TRACK": "1"}
    heard = Heard()
    code = child.run([program, *flags(config, port)], busy, environ, heard)
    if code and (why := cause(heard.lines)):
        raise Refusal(65 if why.startswith(NEVER_MENDS) else code, f"vLLM ended: {why}")
    return code


def check_model(config: EngineConfig) -> None:
    """Refusal 66 if there is no model folder, 65 if vLLM can't do with it what is asked."""
    if not os.path.isdir(config.model):
        raise Refusal(
            66, f"cannot read the model {config.model}: vLLM needs a folder with config.json and weights"
        )
    try:
        settings = json.loads((Path(config.model) / "config.json").read_text("utf-8"))
    except OSError as error:
        raise Refusal(66, f"cannot read the model's config.json: {error.strerror}") from error
    except ValueError as error:
        raise Refusal(65, f"the model's config.json is not JSON: {error}") from error
    if not config.options.allow_pickle and not list(Path(config.model).glob("*.safetensors")):
        raise Refusal(65, "there are no safetensors in the model's folder; pickled weights can run code")
    if not any(list(Path(config.model).glob(name)) for name in TOKENIZERS):
        raise Refusal(65, "there is no tokenizer in the model's folder, such as tokenizer.json or tokenizer.model")
    quantized = isinstance(settings, dict) and "quantization_config" in settings
    if config.options.quantization in {"static", "qat"} and not quantized:
        raise Refusal(
            65,
            f"vLLM does no {config.options.quantization} quantization while it loads: "
            "give it a checkpoint whose config.json has a quantization_config",
        )


def flags(config: EngineConfig, port: int) -> list[str]:
    """The settings as `vllm serve` takes them."""
    options = config.options
    dtype = DTYPES.get(options.load_format) or ("auto" if options.data_type == "int8" else options.data_type)
    named: dict[str, object] = {
        "--served-model-name": config.alias,
        "--host": config.host,
        "--port": port,
        "--max-model-len": config.context_length,
        "--max-num-seqs": config.parallel,
        "--dtype": dtype,
        "--kv-cache-dtype": "fp8" if config.kv_cache_type == "q8_0" else "auto",
        "--load-format": "auto" if options.allow_pickle else "safetensors",
        "--tensor-parallel-size": max(1, config.gpus),
        "--generation-config": "vllm",  # what a request leaves open, the gateway fills in
        "--uvicorn-log-level": config.log_level.lower(),
    }
    if options.load_format == "int8" or options.quantization == "dynamic":
        named["--quantization"] = "fp8"  # its own 8-bit quantization at load: to int8 it can only quantize experts
    words = [str(word) for pair in named.items() for word in pair]
    return ["serve", config.model, *words, "--disable-uvicorn-access-log"]


def in_flight(metrics: str) -> int:
    """How many requests the engine counts, running and waiting."""
    return sum(int(float(count)) for count in IN_FLIGHT.findall(metrics))


def cause(lines: Iterable[str]) -> str:
    """What ended it, as "Name: words": the first error of its last lines, for each process repeats it in its own
    words, down to "Engine core initialization failed". "" if there is none."""
    said = [SAYS.sub("", line) for line in lines]
    for number, line in enumerate(said):
        if found := RAISED.fullmatch(line):
            name, words = found[1] or found[3], found[2] or found[4] or ""
            more = _detail(said[number + 1 :]) if name == "ValidationError" else ""
            return f"{name}: {SENTENCE.split(more or words)[0]}".removesuffix(": ")
    return ""


def _detail(following: list[str]) -> str:
    """What pydantic found: under "1 validation error for ModelConfig", indented."""
    words = next((line.strip() for line in following if line.startswith(" ")), "")
    return DETAIL.sub("", words).removeprefix("Value error, ")
