"""`up --stop-all`: end the console, if it runs, and every instance, found by the label it carries."""

from __future__ import annotations

import os
import signal
import sys
import time

from endpoints.runtimes import runtime_for
from endpoints.runtimes.base import Observed, Phase, Runtime, Unavailable, Workload
from tir_console.up import roster
from tir_console.up.folder import Folder
from tir_console.up.options import Options
from tir_console.up.trouble import Trouble

CONSOLE_SECONDS, INSTANCE_SECONDS = 20.0, 30.0


def stop_all(options: Options) -> int:
    """The exit status. Trouble if something would not end."""
    folder = Folder.open(options.data_dir)
    runtime = runtime_for("process", {"data_dir": str(folder.path)})
    count = len(running(runtime))
    if options.ask and sys.stdin.isatty() and not _agreed(count):
        return 1
    _end_console(folder)
    with folder.held():
        roster.end_leftovers(folder)
        ended = end_instances(runtime)
    print(f"Ended the console and {ended} instance{'' if ended == 1 else 's'}.")  # noqa: T201
    return 0


def running(runtime: Runtime) -> list[Observed]:
    try:
        return [seen for seen in runtime.observe().values() if seen.phase != Phase.EXITED]
    except Unavailable as problem:
        raise Trouble(f"The instances can't be looked at: {problem}") from None


def end_instances(runtime: Runtime, *, seconds: float = INSTANCE_SECONDS) -> int:
    """Ask each to end and wait until none runs; how many there were."""
    found = running(runtime)
    for owner, revision in sorted({(seen.owner, seen.revision) for seen in found}):
        runtime.apply(Workload(owner=owner, revision=revision, replicas=0))
    deadline = time.monotonic() + seconds
    while left := running(runtime):
        if time.monotonic() > deadline:
            raise Trouble(f"These instances do not end: {', '.join(sorted(seen.name for seen in left))}.")
        time.sleep(0.05)
    return len(found)


def _agreed(count: int) -> bool:
    said = input(f"End the console and {count} running instance{'' if count == 1 else 's'}? [y/N] ")
    return said.strip().lower() in {"y", "yes"}


def _end_console(folder: Folder) -> None:
    """Have the `up` that holds the folder end in order, and wait for it."""
    deadline = time.monotonic() + CONSOLE_SECONDS
    holder = folder.holder()
    if holder is None or not folder.is_held():
        return
    os.kill(holder, signal.SIGTERM)
    while folder.is_held():
        if time.monotonic() > deadline:
            raise Trouble(f"The `up` with process number {holder} does not end.")
        time.sleep(0.05)
