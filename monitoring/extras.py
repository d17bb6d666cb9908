"""Numbers that a higher app adds to the live data and to the charts.

Money stands above measuring, so billing can't be imported here: it hands in its part when applications start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import DatabaseError

from endpoints.models import Endpoint
from monitoring.numbers import Tile

log = logging.getLogger(__name__)


class Part:
    """What is added for one endpoint: tiles, and a point at the right end of charts by their id."""

    def __init__(self, tiles: Sequence[Tile] = (), charts: Mapping[str, Sequence[float | None]] | None = None):
        self.tiles = list(tiles)
        self.charts = dict(charts or {})


Extra = Callable[[Sequence[Endpoint], datetime], Mapping[int, Part]]
_extras: list[Extra] = []
charts: dict[str, Any] = {}
"""Charts of higher apps by id, see monitoring.cards.Card."""


def add(extra: Extra) -> None:
    """Ask this too at each tick; once however often it is said."""
    if extra not in _extras:
        _extras.append(extra)


def gather(endpoints: Sequence[Endpoint], *, at: datetime) -> dict[int, list[Part]]:
    """Every extra's part by endpoint. One that fails leaves out its own numbers only."""
    found: dict[int, list[Part]] = {endpoint.pk: [] for endpoint in endpoints}
    for extra in _extras:
        try:
            parts = extra(endpoints, at)
        except DatabaseError as problem:
            log.warning("Live numbers were left out: %s", problem)
            continue
        for key, part in parts.items():
            found[key].append(part)
    return found
