"""Waiting for the real world in tests: poll with a deadline, never sleep and hope."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    look: Callable[[], T | None], *, seconds: float = 60.0, every: float = 0.02, what: str | Callable[[], str] = ""
) -> T:
    """Return the first truthy answer of `look`; AssertionError with `what` once `seconds` have passed.

    The default is what a busy disk may take: machines here are shared, and seconds went by at times for what
    is done in 0.2 s otherwise.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what or look}")
        time.sleep(every)
