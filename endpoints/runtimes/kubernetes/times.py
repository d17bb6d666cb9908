"""Times as the API writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

LONG_AGO = datetime.fromtimestamp(0, UTC)


def moment(text: str | None) -> datetime | None:
    """`2026-11-28T10:00:00.123456789Z`, to the microsecond; None for nothing."""
    if not text:
        return None
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).astimezone(UTC)


def since(text: str | None) -> datetime:
    """The same, with a time long ago for nothing."""
    return moment(text) or LONG_AGO
