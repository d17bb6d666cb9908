"""The processes that are the console, in the order in which they start; they end in the order of STOPPING."""

from __future__ import annotations

import sys

from tir_console.up.folder import Folder
from tir_console.up.options import Options
from tir_console.up.program import Program, answers

# Two workers, so that a model that takes an hour to fetch can never keep the controller waiting.
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")


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
    """The control queue with the beat, and the slow queue."""
    beat = ("-B", "--schedule", str(folder.run / "beat"))
    return [
        _worker("control", 8, *beat),
        _worker("slow", 2),
    ]


def _worker(queue: str, threads: int, *more: str) -> Program:
    celery = (sys.executable, "-m", "celery", "-A", "tir_console", "worker", "--pool", "threads")
    own = ("--concurrency", str(threads), "--queues", queue, "--hostname", f"{queue}-up@%h")
    return Program(name=queue, command=(*celery, *own, *QUIET, *more))


STOPPING = (("gateway",), ("console", "control", "slow"), ("valkey",), ("postgres",))
