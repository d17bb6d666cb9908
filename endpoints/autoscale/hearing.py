"""Which gateways were heard lately: one that falls silent took its count with it, not its requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

SILENCE = timedelta(minutes=5)  # after so long a gateway is gone, not silent

Heard = Mapping[str, datetime]  # when each was heard last, by its source


def listen(known: Heard, heard: Collection[str], at: datetime, *, left: Collection[str] = ()) -> Heard:
    """Who is known after this moment: those heard now, and those whose silence is still short, but for those who
    said that they left."""
    recent = {source: last for source, last in known.items() if abs(at - last) < SILENCE}
    now = recent | dict.fromkeys(heard, at)
    return {source: last for source, last in now.items() if source not in left}


def is_whole(known: Heard, heard: Collection[str]) -> bool:
    """Whether all that are known were heard now; else their sum is a lower bound."""
    return known.keys() <= set(heard)
