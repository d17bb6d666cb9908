"""The parent of an engine that is a program of its own: it passes signals on, but first lets requests finish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence

from serving.config import Refusal
from serving.heard import Heard
from serving.log import say

DRAIN_SECONDS = 30.0
END_SECONDS = 4.0  # more, for the engine's own end: a runtime kills 35 s after it asked


def run(
    argv: Sequence[str],
    busy: Callable[[], int],
    environ: Mapping[str, str] | None = None,
    heard: Heard | None = None,
) -> int:
    """Run the program with this process's stdout and stderr until it ends; its exit code as a shell says it.
    `heard` passes its lines on itself, and keeps the last ones.

    SIGTERM or SIGINT makes it finish what is in flight, by `busy()`, for up to 30 s; meanwhile it still answers
    who comes: a gateway that picked this instance a moment ago must not see an error. Then it is told to end.
    Refusal 72 if there is no such program.
    """
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        child = subprocess.Popen(
            list(argv),
            env={**os.environ, **(environ or {})},
            stdout=subprocess.PIPE if heard else None,
            stderr=subprocess.PIPE if heard else None,
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone
            preexec_fn=_unblocked,  # noqa: PLW1509  no thread has been started yet
        )
    except OSError as error:
        raise Refusal(72, f"cannot start {argv[0]}: {error.strerror}") from error
    if heard:
        heard.listen(child)
    while (code := child.poll()) is None:
        got = signal.sigwait(signals)
        if got != signal.SIGCHLD:
            say(f"{signal.Signals(got).name}: finishing what is in flight")
            code = _stopped(child, busy)
            break
    if heard:
        heard.end()
    return code if code >= 0 else 128 - code


def _unblocked() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _stopped(child: subprocess.Popen[bytes], busy: Callable[[], int]) -> int:
    ends = time.monotonic() + DRAIN_SECONDS + END_SECONDS
    if not drained(busy, DRAIN_SECONDS):
        say(f"still busy after {DRAIN_SECONDS:.0f} s: cutting what is left")
    child.terminate()
    try:
        child.wait(max(0.0, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        say("the engine did not end when told: killed")
        sys.stderr.flush()
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return 0


def drained(busy: Callable[[], int], seconds: float, *, every: float = 0.05) -> bool:
    """Whether nothing was in flight within this time.

    Two idle looks in a row, as a request may stand between the socket and the queue.
    """
    deadline = time.monotonic() + seconds
    idle = 0
    while time.monotonic() < deadline:
        idle = 0 if busy() else idle + 1
        if idle == 2:
            return True
        time.sleep(every)
    return False


def counting(address: str, total: Callable[[str], int]) -> Callable[[], int]:
    """`busy` for an engine that counts at /metrics: an engine that doesn't answer has nothing in flight."""

    def busy() -> int:
        try:
            with urllib.request.urlopen(f"{address}/metrics", timeout=2) as answer:  # noqa: S310  our own child
                return total(answer.read().decode())
        except TimeoutError:
            return 1
        except OSError:
            return 0

    return busy
