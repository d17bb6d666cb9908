"""What a container's first process owes the others: signals passed on, and the ended collected.

The kernel spares process 1 every signal that it has no handler for, so an engine that loads would outlive a stop.
"""

from __future__ import annotations

import os
import signal

PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stand_in() -> None:
    """Go on in a child, and return there only: this process ends as the child does, with its exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED)
    child = os.fork()
    if child:
        for number in PASSED:
            signal.signal(number, lambda got, _: os.kill(child, got))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED)
    while child:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
