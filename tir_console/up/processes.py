"""The processes that are the console, in the order in which they start; they end in the order of STOPPING."""

from __future__ import annotations

import sys

from tir_console.up.folder import Folder
from tir_console.up.options import Options
from tir_console.up.program import Program, answers


def doors(options: Options) -> list[Program]:
    """What answers on a port: console and gateway."""
    console, gateway = options.console, options.gateway
    daphne = ("daphne", "-b", console.host, "-p", str(console.port), "-v", "0", "--no-server-name")
    return [
        Program(
            name="console",
            command=(sys.executable, "-m", *daphne, "tir_console.asgi:application"),
            ready=lambda: answers(f"{console.url}/healthz"),
        ),
        Program(
            name="gateway",
            command=(sys.executable, "-m", "gateway"),
            ready=lambda: answers(f"{gateway.url}/healthz"),
            patience=5.0,  # what it answers now goes on this long
        ),
    ]


def workers(folder: Folder) -> list[Program]:
    """The control queue with the beat, and the slow queue: two workers, so that a model that takes an hour to
    fetch can never keep the controller waiting."""
    work = (sys.executable, "-m", "tir_console.up.work")
    return [
        Program(name="control", command=(*work, "control", "8", str(folder.run / "beat"))),
        Program(name="slow", command=(*work, "slow", "4")),
    ]


STOPPING = (("gateway",), ("console", "control", "slow"), ("valkey",), ("postgres",))
