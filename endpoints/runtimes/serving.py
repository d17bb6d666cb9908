"""The settings that `python -m serving` reads, from what a workload asks for. The same for every runtime."""

from __future__ import annotations

from typing import Any

from endpoints.runtimes.base import Command

LLAMA_CPP = "llama.cpp"
SPARE_WORKERS = 6


def serving_config(
    command: Command, *, model: str, host: str, port: int, threads: int, gpus: int = 0, cache: str = ""
) -> dict[str, Any]:
    """JSON-ready. `model` is where the instance itself sees it; `cache` a folder it may write to, "" for none."""
    config: dict[str, Any] = {
        "engine": command.engine,
        "model": model,
        "alias": command.alias,
        "host": host,
        "port": port,
        "context_length": command.context_length,
        "parallel": command.parallel,
        "kv_cache_type": command.kv_cache_type,
        "context_shift": command.context_shift,
        "threads_http": _threads_http(command),
        "threads": threads,
        "log_level": command.log_level,
    }
    if command.engine == LLAMA_CPP:
        return config
    return config | {
        "version": command.version,
        "workers": command.workers,
        "gpus": gpus,
        "cache": cache,
        "options": dict(command.options),
    }


def _threads_http(command: Command) -> int:
    """One thread carries one open connection, so probes, scrapes and idle keep-alives need some of their own."""
    return max(command.workers, command.parallel) + SPARE_WORKERS if command.workers else 0
