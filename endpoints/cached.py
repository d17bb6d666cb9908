"""How full a region's cache of models is, as its place saw it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Cached:
    """As it was at a moment (ISO 8601): bytes of its disk, its models, and what had to go then to make room."""

    name: str
    at: str
    total: int
    free: int
    models: int
    size: int
    removed: int
    removed_size: int


@runtime_checkable
class Caches(Protocol):
    """A runtime that may keep models for its instances, in a place that this machine doesn't see."""

    def cached(self) -> Cached | None:
        """As it was last seen; None where there is no such place or nobody told of it. May raise Unavailable."""
