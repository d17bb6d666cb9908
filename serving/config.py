"""The settings of one engine: a JSON file becomes a checked, frozen EngineConfig, or one clear sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

ENGINES = ("llama.cpp",)
KV_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Refusal(Exception):
    """The engine can't start like this; `code` is the exit code of the process and `str()` its last line."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class EngineConfig:
    """What `python -m serving --config FILE` runs.

    `context_length` is in tokens and holds for each of the `parallel` sequences. `port=0` lets the system
    choose. `threads` compute; `threads_http` each carry one open connection, and 0 means as many as the
    parallel sequences need, with room for probes and scrapes beside them.
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
        for name in ("model", "alias", "host"):
            if not getattr(self, name).strip():
                raise Refusal(64, f"{name} must not be empty")

    def _choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise Refusal(64, f"{name} must be one of {', '.join(choices)}, not {value!r}")

    def _within(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise Refusal(64, f"{name} must be between {low} and {high}, not {value}")


def parsed(text: str) -> EngineConfig:
    """The config in this JSON text. Refusal 64 for bad JSON, an unknown or missing key, or a wrong type."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise Refusal(64, f"the config is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise Refusal(64, f"the config must be a JSON object, not {type(given).__name__}")
    known = {field.name: field.type for field in fields(EngineConfig)}
    if unknown := sorted(set(given) - set(known)):
        raise Refusal(64, f"unknown key in the config: {', '.join(unknown)}")
    if missing := sorted({"engine", "model", "alias"} - set(given)):
        raise Refusal(64, f"missing in the config: {', '.join(missing)}")
    for name, value in given.items():
        _typed(name, value, str(known[name]))
    return EngineConfig(**given)


def _typed(name: str, value: Any, wanted: str) -> None:
    if type(value).__name__ != wanted:  # exact: a JSON true is no number here
        raise Refusal(64, f"{name} must be {wanted}, not {type(value).__name__}")


def read(path: str) -> EngineConfig:
    """The config in this file. Refusal 64 if it can't be read or is wrong."""
    try:
        with open(path, encoding="utf-8") as file:
            return parsed(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(64, f"cannot read the config: {error}") from error
