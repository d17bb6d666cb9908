"""The instance's log: lines on stderr, the process's own words marked as such."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """One line for the instance's log."""
    sys.stderr.write(f"serving: {text}\n")
    sys.stderr.flush()
