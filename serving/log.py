"""The instance's log: lines on stderr, the process's own words marked as such."""

from __future__ import annotations

import re
import sys

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def say(text: str) -> None:
    """One line for the instance's log."""
    sys.stderr.write(f"serving: {text}\n")
    sys.stderr.flush()


def colourless(text: str) -> str:
    """A text that was meant for a terminal, as Keras words its errors, for whoever reads it elsewhere."""
    return COLOURS.sub("", text)
