"""What a region keeps that nobody needs any more goes; what an endpoint may want again stays."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime
from typing import Protocol, runtime_checkable

from endpoints.models import Region, Revision
from endpoints.models.registry import current
from endpoints.regions import runtime_of
from endpoints.runtimes.base import Unavailable
from endpoints.workloads import image_name

log = logging.getLogger(__name__)


@runtime_checkable
class Tidies(Protocol):
    """A runtime that keeps things of its own beside instances."""

    def tidy(self, keep: Collection[str], *, at: float) -> list[str]:
        """Take away what nothing needs; the names of images that went. `keep` are names to leave in any case."""


def tidy(region: Region, *, at: datetime) -> list[str]:
    """One round. May run twice at once, or be cut off; nothing when the region can't be asked."""
    runtime = runtime_of(region)
    if not isinstance(runtime, Tidies):
        return []
    revisions = current(Revision.objects.filter(endpoint__region=region))
    keep = {image_name(region, one.wish) for one in revisions}
    try:
        gone = runtime.tidy(keep, at=at.timestamp())
    except Unavailable as problem:
        log.warning("Region %s can't be tidied: %s", region.slug, problem)
        return []
    for name in gone:
        log.info("Region %s: the image %s, which nothing needs, was removed", region.slug, name)
    return gone
