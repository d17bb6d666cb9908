"""What a container's first process owes the others: signals passed on, and the ended collected.

The kernel spares process 1 every signal that it has no handler for, so an engine that loads would outlive a stop.
"""

from __future__ import annotations

import os
import signal

PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
AWAITED = (*PASSED, signal.SIGCHLD)


def stand_in() -> None:
    """Go on in a child, and return there only: this process ends as the child does, with its exit code.

    Signals are taken one by one, never by a handler: one that comes just before a wait for children begins would
    be handled only after that wait.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        got = signal.sigwait(AWAITED)
        if got == signal.SIGCHLD:
            _collect(child)
        else:
            os.kill(child, got)


def _collect(child: int) -> None:
    """What has ended; with the child, this process ends too."""
    while ended := os.waitpid(-1, os.WNOHANG):
        if ended[0] == child:
            code = os.waitstatus_to_exitcode(ended[1])
            os._exit(code if code >= 0 else 128 - code)
        if not ended[0]:
            return
