"""llama.cpp's own OpenAI-compatible server, run with a revision's settings.

In this process by the xllamacpp wheel, or as the program llama-server, as images for GPUs bring it.
"""

from __future__ import annotations

import re
import signal
import sys
from typing import Any

from serving import ports
from serving.config import EngineConfig, Refusal
from serving.log import say

VERBOSITY = {"ERROR": 1, "WARNING": 2, "INFO": 3, "DEBUG": 4}
DRAIN_SECONDS = 30.0
CHECKPOINTS = 2  # that a sequence of a windowed or recurrent model may go back to; its estimate counts as many
IN_FLIGHT = re.compile(r"^llamacpp:requests_(?:processing|deferred) (\d+)", re.MULTILINE)


class Missing(Refusal):
    """There is no wheel of llama.cpp here."""


def check_model(path: str) -> None:
    """Refusal 66 if the file can't be read, 65 if it is not a GGUF: said before an engine says it in C++."""
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise Refusal(66, f"cannot read the model {path}: {error.strerror}") from error
    if magic != b"GGUF":
        raise Refusal(65, f"the model {path} is not a GGUF file: it begins with {magic!r}")


def serve(config: EngineConfig, address_file: str | None) -> int:
    """Take a port, say so, and run the engine that is here; the exit code."""
    check_model(config.model)
    holder = ports.held(config.host, config.port)
    port = holder.getsockname()[1] if holder else config.port
    if address_file:
        ports.publish(address_file, config.host, port)
    try:
        return run(config, port)
    except Missing:
        program = _program()
        if program is None:
            raise
    from serving import child  # noqa: PLC0415  the wheel's start doesn't pay for it

    return child.run([program, *flags(config, port)], child.counting(ports.address(config.host, port), in_flight))


def _program() -> str | None:
    """llama-server, as images for GPUs bring it."""
    import shutil  # noqa: PLC0415  see serve

    return shutil.which("llama-server")


def flags(config: EngineConfig, port: int) -> list[str]:
    """The same settings as `params`, for llama-server; with GPUs every layer is on them."""
    named = {
        "--model": config.model,
        "--alias": config.alias,
        "--host": config.host,
        "--port": port,
        "--ctx-size": config.context_length * config.parallel,
        "--parallel": config.parallel,
        "--cache-type-k": config.kv_cache_type,
        "--cache-type-v": config.kv_cache_type,
        "--threads": config.threads,
        "--threads-batch": config.threads,
        "--threads-http": config.threads_http or 2 * config.parallel + 6,
        "--log-verbosity": VERBOSITY[config.log_level],
        "--n-gpu-layers": "all" if config.gpus else 0,
        "--fit": "off",
        "--cache-ram": 0,
        "--ctx-checkpoints": CHECKPOINTS,
        "--cors-origins": "",
    }
    switches = ["--metrics", "--no-slots", "--no-ui", "--no-warmup", "--no-kv-unified", "--no-cache-idle-slots"]
    switches += ["--context-shift" if config.context_shift else "--no-context-shift"]
    switches += [] if config.port else ["--reuse-port"]
    return [str(word) for pair in named.items() for word in pair] + switches


def in_flight(metrics: str) -> int:
    """How many requests the engine counts, running and waiting."""
    return sum(int(count) for count in IN_FLIGHT.findall(metrics))


def params(config: EngineConfig, port: int) -> Any:
    """The engine's own parameters for this config. Refusal 72 if the engine is not installed."""
    xllamacpp = _wheel()
    given = xllamacpp.CommonParams()
    given.model.path = config.model
    given.model_alias = {config.alias}
    given.hostnames = [config.host]
    given.port = port
    given.reuse_port = not config.port
    # The engine divides n_ctx among its slots, so each sequence gets the promised length.
    given.n_ctx = config.context_length * config.parallel
    given.n_parallel = config.parallel
    given.cache_type_k = given.cache_type_v = getattr(xllamacpp.ggml_type, _ggml(config.kv_cache_type))
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = config.threads
    given.n_threads_http = config.threads_http or 2 * config.parallel + 6
    given.verbosity = VERBOSITY[config.log_level]
    given.endpoint_metrics = True
    given.warmup = False  # whoever starts it makes a real call before it takes traffic, which warms it as well
    given.ctx_shift = config.context_shift
    _closed(given)
    return given


def _wheel() -> Any:
    try:
        import xllamacpp  # noqa: PLC0415  an instance pays for its own engine only
    except ImportError as error:
        raise Missing(72, f"the llama.cpp engine is not installed here: {error}") from error
    return xllamacpp


def _closed(given: Any) -> None:
    """Switch off what an instance behind a gateway must not do."""
    given.fit_params = False  # the revision's settings hold; the engine doesn't guess its own
    given.cache_ram_mib = 0  # else it keeps old prompts in up to 8 GiB beyond what was planned for
    given.n_ctx_checkpoints = CHECKPOINTS  # else up to 32 a sequence, in memory that was planned for nobody
    given.cache_idle_slots = False
    given.ui = False
    given.endpoint_slots = given.endpoint_props = False  # they show other people's prompts
    given.cors_origins = ""  # no web page calls an instance: the gateway does
    given.cors_origins_explicit = True


def _ggml(name: str) -> str:
    return f"GGML_TYPE_{name.upper()}"


def run(config: EngineConfig, port: int) -> int:
    """Load the model, serve until SIGTERM or SIGINT, finish what is in flight, return the exit code.

    Until the model is loaded /health answers 503, and a signal ends the process at once: nothing is lost.
    Refusal 65 if the engine can't load the model; its own messages stand above on stderr.
    """
    xllamacpp = _wheel()
    signals = {signal.SIGTERM, signal.SIGINT}
    try:
        server = xllamacpp.Server(params(config, port))
    except RuntimeError as error:
        raise Refusal(65, "llama.cpp cannot load this model file; its own messages stand above") from error
    # Blocked only now: while the engine loads it holds the interpreter, and no handler of ours could run.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    got = signal.sigwait(signals)
    say(f"{signal.Signals(got).name}: finishing what is in flight")
    if _drained(server):
        del server  # closes connections after their last byte
        return 0
    say(f"still busy after {DRAIN_SECONDS:.0f} s: cutting what is left")
    sys.stderr.flush()
    return -1


def _drained(server: Any, *, every: float = 0.05) -> bool:
    """Whether the engine fell idle within the drain time.

    It still answers who comes meanwhile: a gateway that picked this instance a moment ago must not see an
    error.
    """
    from serving import child  # noqa: PLC0415  a start doesn't pay for it

    return child.drained(lambda: in_flight(server.handle_metrics()), DRAIN_SECONDS, every=every)
