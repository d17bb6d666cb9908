"""From a region's row to the runtime that runs its instances."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from functools import cache
from typing import Any

from django.conf import settings

from endpoints.cached import Caches
from endpoints.models import Region
from endpoints.models.catalogue import RuntimeKind
from endpoints.runtimes import runtime_for
from endpoints.runtimes.base import Runtime, Unavailable

log = logging.getLogger(__name__)

_replaced: dict[str, Runtime] = {}


def runtime_of(region: Region) -> Runtime:
    """The runtime of a region; one object a process, because a runtime keeps nothing that matters.

    Unavailable if its settings make no sense, as after an upgrade that knows one of them no more.
    """
    if region.slug in _replaced:
        return _replaced[region.slug]
    try:
        return _build(region.runtime, _whole(region.runtime, region.config))
    except ValueError as problem:
        raise Unavailable(f"Its settings are wrong: {problem}") from problem


@cache
def _build(kind: str, config: str) -> Runtime:
    return runtime_for(kind, json.loads(config))


def _whole(kind: str, config: Mapping[str, Any]) -> str:
    """A region's settings with those of the installation, as text."""
    ours: dict[str, Any] = {"data_dir": str(settings.DATA_DIR), "cpu_overcommit": settings.CPU_OVERCOMMIT}
    if kind == RuntimeKind.KUBERNETES:
        ours["private"] = settings.SOURCES_ALLOW_PRIVATE
    return json.dumps(ours | dict(config), sort_keys=True)


def config_problem(kind: str, config: Mapping[str, Any]) -> str:
    """Why no region can have these settings; empty if it can. Nothing is reached."""
    try:
        _build(kind, _whole(kind, config))
    except ValueError as problem:
        said = str(problem)
        return f"{said[:1].upper()}{said[1:]}."
    return ""


def measure(region: Region, *, at: datetime) -> None:
    """Ask what it can hold and write that down, or why it can't be asked, for pages that may not ask a runtime."""
    try:
        runtime = runtime_of(region)
        found = runtime.capacity()
        cached = runtime.cached() if isinstance(runtime, Caches) else None
    except Unavailable as problem:
        log.warning("Region %s can't be asked: %s", region.slug, problem)
        region.unreached(str(problem), at=at)
        return
    region.measured(asdict(found) if found.known else {"reason": found.reason}, at=at)
    if cached:
        region.saw_cache(asdict(cached))


def replace_runtime(slug: str, runtime: Runtime | None) -> None:
    """Put another runtime in a region's place: for tests and benchmarks, which bring their own worlds."""
    if runtime is None:
        _replaced.pop(slug, None)
    else:
        _replaced[slug] = runtime
