"""A file whose time says that a worker, or the beat, still goes round. A cluster's liveness probe looks at it.

ALIVE_FILE names it; without one nothing is written. An outage of Valkey is no standstill: who waits says so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.beat import PersistentScheduler

EVERY = 10.0  # seconds between two rounds of a worker


def say() -> None:
    """This process goes on."""
    if file := os.environ.get("ALIVE_FILE"):
        Path(file).touch()


class Pulse(bootsteps.StartStopStep):
    """Said by the loop in which a worker takes its messages."""

    requires = ("celery.worker.components:Timer",)

    def start(self, worker: Any) -> None:
        say()
        self.pulse = worker.timer.call_repeatedly(EVERY, say)

    def stop(self, worker: Any) -> None:
        self.pulse.cancel()


class Scheduler(PersistentScheduler):
    """The beat's, which says it at each round."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Start what is due; seconds until the next."""
        say()
        return float(super().tick(*args, **kwargs))
