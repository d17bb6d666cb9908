"""A real daphne of this console on a free port, in front of the services of `benchmarks.stage`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.wait import until
from tir_console.up.ports import free_port
from tir_console.up.program import answers


@dataclass(frozen=True)
class Daphne:
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def daphne() -> Iterator[Daphne]:
    """As `up` starts it, answering."""
    port = free_port()
    command = (sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "-v", "0", "--no-server-name")
    environ = os.environ | {"DJANGO_SETTINGS_MODULE": "tir_console.settings"}
    process = subprocess.Popen([*command, "tir_console.asgi:application"], env=environ, start_new_session=True)
    try:
        made = Daphne(port, process.pid)
        until(lambda: answers(f"{made.url}/healthz"), seconds=60, every=0.1, what="daphne")
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
