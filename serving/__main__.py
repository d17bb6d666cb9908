"""python -m serving --config FILE [--address-file FILE]

Runs one model server in this process until SIGTERM. Exit codes, each with its reason in a line on stderr that
begins with "serving:" (after 65 the engine's own log thread may write after it): 0 stopped when asked; 64 the
config is wrong; 65 the model file is no model this engine can load; 66 the model file can't be read; 69 the port
is taken; 72 the engine is not installed. A death by signal (134 abort, 137 killed or out of memory, 139 a fault)
is the engine's own.
"""

from __future__ import annotations

import os
import sys

from serving import config, llamacpp, ports

USAGE = "usage: python -m serving --config FILE [--address-file FILE]"


def arguments(argv: list[str]) -> dict[str, str]:
    """The options given, by name. Refusal 64 for anything else. (argparse costs 15 ms of every start.)"""
    given = dict(zip(argv[::2], argv[1::2], strict=False))
    if len(argv) % 2 or set(given) - {"--config", "--address-file"} or "--config" not in given:
        raise config.Refusal(64, USAGE)
    return given


def main(argv: list[str]) -> int:
    """Serve; the exit code."""
    try:
        given = arguments(argv)
        engine = config.read(given["--config"])
        llamacpp.check_model(engine.model)
        holder = ports.held(engine.host, engine.port)
        port = holder.getsockname()[1] if holder else engine.port
        if "--address-file" in given:
            ports.publish(given["--address-file"], engine.host, port)
        return llamacpp.run(engine, port)
    except config.Refusal as refusal:
        llamacpp.say(str(refusal))
        return refusal.code


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code < 0:
        os._exit(0)  # the engine's own end would wait another half minute for requests we gave up on
    sys.exit(code)
