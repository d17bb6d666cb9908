"""python -m serving [--config FILE] [--address-file FILE]

Runs one model server in this process until SIGTERM. Without --config the variable TIR_CONFIG holds the config's
JSON. Exit codes, each with its reason in a line on stderr that begins with "serving:" (after 65 the engine's own
log thread may write after it): 0 stopped when asked; 64 the config is wrong; 65 the model is none that this engine
can load, or its quantized form misses the accuracy asked for; 66 the model can't be read; 69 the port is taken;
72 the engine is not installed. A death by signal (134 abort, 137 killed or out of memory, 139 a fault) is the
engine's own.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from serving import config
from serving.log import say

USAGE = "usage: python -m serving [--config FILE] [--address-file FILE]"
LAUNCHERS = {"llama.cpp": "serving.llamacpp", "vllm": "serving.vllm"}  # an instance pays for its own engine only
OUR_SERVER = "serving.server.run"


def arguments(argv: list[str]) -> dict[str, str]:
    """The options given, by name. Refusal 64 for anything else. (argparse costs 15 ms of every start.)"""
    given = dict(zip(argv[::2], argv[1::2], strict=False))
    if len(argv) % 2 or set(given) - {"--config", "--address-file"}:
        raise config.Refusal(64, USAGE)
    if "--config" not in given and "TIR_CONFIG" not in os.environ:
        raise config.Refusal(64, USAGE)
    return given


def main(argv: list[str]) -> int:
    """Serve; the exit code."""
    try:
        given = arguments(argv)
        engine = config.read(given.get("--config"))
        module = import_module(LAUNCHERS.get(engine.engine, OUR_SERVER))
        code: int = module.serve(engine, given.get("--address-file"))
    except config.Refusal as refusal:
        say(str(refusal))
        return refusal.code
    return code


if __name__ == "__main__":
    if os.getpid() == 1:
        import_module("serving.first").stand_in()
    code = main(sys.argv[1:])
    if code < 0:
        os._exit(0)  # the engine's own end would wait another half minute for requests we gave up on
    sys.exit(code)
