"""`python -m tir_console.up.work QUEUE THREADS [SCHEDULE]`: a Celery worker without banner and chatter.

With the name of a schedule file it runs the beat too, as a thread: that saves a process, and nothing is left
over when the worker is killed. If the beat ends, so does the worker, because whoever started it starts it anew.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from typing import Any

import django
import kombu
from celery.beat import Service
from celery.exceptions import SecurityWarning

from tir_console import alive

LONGEST_PAUSE = 2.0  # seconds between two attempts to reach Valkey again


class Persistent(kombu.Connection):
    """Comes back soon after an outage: Celery's own pauses grow to 30 s, and only it knows the attempts."""

    def _ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        kwargs |= {"interval_start": 0.5, "interval_step": 0.5, "interval_max": LONGEST_PAUSE}
        asked = kwargs.get("callback")  # by which a stop comes through

        def waiting() -> None:
            alive.say()
            if asked:
                asked()

        return super()._ensure_connection(*args, **kwargs | {"callback": waiting})


def main(queue: str, threads: int, schedule: str | None) -> int:
    django.setup()
    from tir_console.celery import app  # noqa: PLC0415  after the settings

    app.amqp.Connection = Persistent
    app.steps["worker"].add(alive.Pulse)
    # As root Celery warns of pickled messages; ours are JSON.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = app.Worker(
        hostname=f"{queue}-{os.getpid()}@tir",
        pool="threads",
        concurrency=threads,
        queues=[queue],
        loglevel=os.environ.get("LOG_LEVEL", "WARNING"),
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    beat = Service(app, schedule_filename=schedule) if schedule else None
    if beat:
        threading.Thread(target=_beat, args=(beat,), name="beat", daemon=True).start()
    worker.start()
    if beat:
        beat.stop()
    return int(worker.exitcode or 0)


def _beat(beat: Service) -> None:
    try:
        beat.start()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tir_console.settings")
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None))
