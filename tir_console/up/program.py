"""What the launcher needs to know of a program that it keeps running."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def always() -> bool:
    return True


@dataclass(frozen=True)
class Program:
    """`ready` is asked again and again until it says yes. `patience` is the seconds between asking the program
    to end (`stop`) and killing it. `shown`: its lines go to the terminal too, not only to its log."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool] = always
    stop: signal.Signals = signal.SIGTERM
    hurry: signal.Signals = signal.SIGKILL
    patience: float = 3.0
    shown: bool = True
    user: str | None = None

    def leash(self) -> Callable[[], None] | None:
        """To be called in the new process: have the system ask it to end when the launcher is gone, so that a
        killed launcher leaves nothing of ours behind. None where the system can't."""
        return partial(_ask_to_end, int(self.stop), os.getpid()) if _libc else None


def _ask_to_end(number: int, launcher: int) -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != launcher:  # it died before we asked
        os._exit(1)


def answers(url: str) -> bool:
    """Whether `url` answers 200 now."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
