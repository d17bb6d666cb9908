"""The settings of one engine: a JSON file becomes a checked, frozen EngineConfig, or one clear sentence."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from typing import Any

ENGINES = ("llama.cpp", "vllm", "pytorch", "tensorflow", "onnx", "python")
KV_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOAD_FORMATS = ("auto", "fp32", "fp16", "int8")
DATA_TYPES = ("float32", "float16", "bfloat16", "int8")
QUANTIZATIONS = ("none", "dynamic", "static", "qat")
TOKENIZER_TYPES = ("auto", "bpe", "wordpiece", "sentencepiece")
PADDINGS = ("none", "left", "right")


class Refusal(Exception):
    """The engine can't start like this; `code` is the exit code of the process and `str()` its last line."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Checked:
    """What both groups of settings share: a refusal that names the setting and what it may be."""

    def _choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise Refusal(64, f"{name} must be one of {', '.join(choices)}, not {value!r}")

    def _within(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise Refusal(64, f"{name} must be between {low} and {high}, not {value}")


@dataclass(frozen=True)
class Options(Checked):
    """The settings that the engines for folders know, beside the common ones.

    `load_format` is the precision of the weights in memory, `data_type` the one that the model computes in.
    `calibration_dataset` is a path inside the model's folder; `accuracy_threshold` what a quantized model must
    keep of the original (quantize/agreement.py has the formula). `batch_window_ms` is how long a lone request
    waits for company; `queue` how many may wait. A request may take `request_seconds`, its body `max_body_mb`.
    """

    load_format: str = "auto"
    data_type: str = "float32"
    quantization: str = "none"
    calibration_dataset: str = ""
    accuracy_threshold: float = 0.95
    tokenizer_type: str = "auto"
    padding: str = "none"
    allow_pickle: bool = False
    batch_window_ms: float = 5.0
    queue: int = 1024
    request_seconds: float = 600.0
    max_body_mb: int = 64

    @property
    def method(self) -> str:
        """How an engine that quantizes itself does it: weights loaded as int8 are quantized dynamically."""
        wants = "int8" in {self.load_format, self.data_type} and self.quantization == "none"
        return "dynamic" if wants else self.quantization

    def __post_init__(self) -> None:
        """Refusal 64 for a value that no engine can honour."""
        self._choice("load_format", LOAD_FORMATS)
        self._choice("data_type", DATA_TYPES)
        self._choice("quantization", QUANTIZATIONS)
        self._choice("tokenizer_type", TOKENIZER_TYPES)
        self._choice("padding", PADDINGS)
        self._within("accuracy_threshold", 0.5, 1.0)
        self._within("batch_window_ms", 0, 1000)
        self._within("queue", 1, 65_536)
        self._within("request_seconds", 1, 86_400)
        self._within("max_body_mb", 1, 1024)


@dataclass(frozen=True)
class EngineConfig(Checked):
    """What `python -m serving --config FILE` runs.

    `model` is a file for llama.cpp and a folder (or a lone .onnx file) for the others. `context_length` is in
    tokens and holds for each of the `parallel` sequences, which for a model of one's own is the largest batch.
    `port=0` lets the system choose. `threads` compute; `threads_http` each carry one open connection, and 0
    means as many as the parallel sequences need, with room for probes and scrapes beside them. `workers` call a
    model of one's own at the same time, 0 stands for 4. `cache` is a folder it may write to, "" for none. With
    `packages` those that the model's requirements.txt names are installed at the start: nobody has done it before.
    """

    engine: str
    model: str
    alias: str
    host: str = "127.0.0.1"
    port: int = 0
    context_length: int = 2048
    parallel: int = 1
    kv_cache_type: str = "f16"
    threads: int = 1
    threads_http: int = 0
    context_shift: bool = False  # go on past the length by dropping the oldest tokens, instead of stopping
    log_level: str = "INFO"
    version: str = ""  # of the framework, such as "2.x"; the image or environment was chosen by it
    workers: int = 0
    gpus: int = 0
    cache: str = ""
    packages: bool = False
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        """Refusal 64 for a value that no engine can honour."""
        self._choice("engine", ENGINES)
        self._choice("kv_cache_type", KV_CACHE_TYPES)
        self._choice("log_level", LOG_LEVELS)
        self._within("port", 0, 65_535)
        self._within("context_length", 1, 16_777_216)
        self._within("parallel", 1, 256)
        self._within("threads", 1, 512)
        self._within("threads_http", 0, 1024)
        self._within("workers", 0, 64)
        self._within("gpus", 0, 64)
        for name in ("model", "alias", "host"):
            if not getattr(self, name).strip():
                raise Refusal(64, f"{name} must not be empty")


def parsed(text: str) -> EngineConfig:
    """The config in this JSON text. Refusal 64 for bad JSON, an unknown or missing key, or a wrong type.

    What the text leaves open is taken from the standard variables MODEL_PATH, MAX_WORKERS and LOG_LEVEL.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise Refusal(64, f"the config is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise Refusal(64, f"the config must be a JSON object, not {type(given).__name__}")
    given = _variables() | given
    _known(EngineConfig, given)
    if missing := sorted({"engine", "model", "alias"} - set(given)):
        raise Refusal(64, f"missing in the config: {', '.join(missing)}")
    options = given.pop("options", {})
    _known(Options, options)
    return EngineConfig(**given, options=Options(**options))


def _variables() -> dict[str, Any]:
    """What the standard variables say, where they are set."""
    found: dict[str, Any] = {}
    for name, variable in (("model", "MODEL_PATH"), ("log_level", "LOG_LEVEL")):
        if value := os.environ.get(variable):
            found[name] = value
    if workers := os.environ.get("MAX_WORKERS"):
        if not workers.isascii() or not workers.isdigit():
            raise Refusal(64, f"MAX_WORKERS must be a whole number, not {workers!r}")
        found["workers"] = int(workers)
    return found


def _known(kind: type[EngineConfig | Options], given: dict[str, Any]) -> None:
    """Refusal 64 for a key that this group doesn't have, or a value of another type than its default."""
    known = {one.name: str(one.type) for one in fields(kind)}
    place = "the config" if kind is EngineConfig else "options"
    if unknown := sorted(set(given) - set(known)):
        raise Refusal(64, f"unknown key in {place}: {', '.join(unknown)}")
    for name, value in given.items():
        _typed(name, value, known[name])


def _typed(name: str, value: Any, wanted: str) -> None:
    found = type(value).__name__  # exact: a JSON true is no number here
    wanted = "dict" if wanted == "Options" else wanted
    if found != wanted and (found, wanted) != ("int", "float"):
        raise Refusal(64, f"{name} must be {wanted}, not {found}")


def read(path: str | None) -> EngineConfig:
    """The config in this file, or in the variable TIR_CONFIG if there is none. Refusal 64 if it is wrong."""
    if path is None:
        return parsed(os.environ.get("TIR_CONFIG", ""))
    try:
        with open(path, encoding="utf-8") as file:
            return parsed(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(64, f"cannot read the config: {error}") from error
