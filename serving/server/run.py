"""The life of the server: a port, a model, requests, and an end that cuts nobody off."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from serving import ports
from serving.config import EngineConfig, Refusal
from serving.log import say
from serving.models import loading

DRAIN_SECONDS = 30.0


def serve(config: EngineConfig, address_file: str | None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code, -1 if work had to be left in the middle."""
    try:
        from serving.server import app  # noqa: PLC0415  aiohttp and the rest come with the engine
    except ImportError as error:
        raise Refusal(72, f"the {config.engine} engine is not installed here: {error}") from error
    loading.check_model(config.model)
    _environment(config)
    listener = ports.listening(config.host, config.port)
    if address_file:
        ports.publish(address_file, config.host, listener.getsockname()[1])
    return asyncio.run(_run(config, listener, app))


async def _run(config: EngineConfig, listener: socket.socket, app: Any) -> int:
    told = _told()
    state = app.State(config)
    runner = app.web.AppRunner(
        app.application(state), handler_cancellation=True, access_log=None, shutdown_timeout=1.0
    )
    await runner.setup()
    await app.web.SockSite(runner, listener).start()
    try:
        loop = asyncio.get_running_loop()
        load = loop.run_in_executor(ThreadPoolExecutor(1, thread_name_prefix="load"), _load, config, state)
        either: set[asyncio.Future[Any]] = {load, told}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not load.done():
            return -1  # nothing is lost, and the loading thread can't be stopped
        state.ready(load.result())
        say(f"ready: {', '.join(state.loaded.model.capabilities)}")
        name = await told
        state.phase = app.Phase.DRAINING
        say(f"{name}: finishing what is in flight")
        return 0 if await _idle(state) else -1
    finally:
        await runner.cleanup()


def _told() -> asyncio.Future[str]:
    """The name of the first SIGTERM or SIGINT, once it has come."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[str] = loop.create_future()

    def tell(name: str) -> None:
        if not told.done():
            told.set_result(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell, number.name)
    return told


def _load(config: EngineConfig, state: Any) -> loading.Loaded:
    """Load and warm up. Refusal 65 if the model's own example fails: it would fail every request as well."""
    loaded = loading.load(config)
    state.warming()
    try:
        words = loaded.model.warm_up()
    except Exception as error:  # whatever the model raises
        traceback.print_exc()
        raise Refusal(65, f"the model's own example failed: {loading.last_line(error)}") from error
    if words:
        say(words)
    return loaded


async def _idle(state: Any, *, every: float = 0.05) -> bool:
    """Whether nothing was in flight within the drain time. It still answers who comes meanwhile: a gateway that
    picked this instance a moment ago must not see an error. Two idle looks in a row, as in serving.child."""
    ends = time.monotonic() + DRAIN_SECONDS
    idle = 0
    while time.monotonic() < ends:
        idle = 0 if state.in_flight else idle + 1
        if idle == 2:
            return not state.workers.busy
        await asyncio.sleep(every)
    say(f"still busy after {DRAIN_SECONDS:.0f} s: cutting what is left")
    return False


def _environment(config: EngineConfig) -> None:
    """What the model's own code and its libraries read, before they are imported."""
    os.environ.setdefault("MODEL_PATH", config.model)
    os.environ.setdefault("LOG_LEVEL", config.log_level)
    for threads in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(threads, str(config.threads))
    for libraries_report in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(libraries_report, "1")  # which model runs here is nobody else's business
    if cache := os.environ.get("TRANSFORMERS_CACHE"):
        os.environ.setdefault("HF_HUB_CACHE", cache)  # transformers 5 no longer knows the old name
    sys.path.append(str(Path(__file__).parents[1] / "provided"))  # what a model may import of ours: tir_secrets
    sys.dont_write_bytecode = True  # the model's folder is read-only
    logging.basicConfig(level=config.log_level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
