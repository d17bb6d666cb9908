"""The timer behind every doorbell: looks at all endpoints at once and wakes a run where one is due.

It reads and plans but writes nothing: in a steady state a sweep costs a handful of queries and no write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from zlib import crc32

from django.db import connection
from django.utils import timezone

from endpoints import bell, controller, facts
from endpoints.facts import Loaded
from endpoints.models import Endpoint, Instance, Region
from endpoints.planner import Room, plan
from endpoints.regions import runtime_of
from endpoints.runtimes.base import Capacity, Observed, Runtime, Unavailable, Workload

log = logging.getLogger(__name__)

LOCK = 0x7149_0001  # advisory: one sweep at a time, whoever is first
PROBE_SHARE = 5  # each sweep probes one in so many of the instances that serve
Wake = Callable[[int], object]


def wake(endpoint_id: int) -> None:
    bell.send("endpoints.reconcile", endpoint_id)


def sweep(*, at: datetime | None = None, wake: Wake = wake, turn: int | None = None) -> list[int]:
    """Wake a run for every endpoint that has something to do; the ids, for tests and benchmarks."""
    at = at or timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return []
        try:
            return _sweep(at, wake, int(at.timestamp() / 2) if turn is None else turn)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _sweep(at: datetime, wake: Wake, turn: int) -> list[int]:
    woken = []
    for region in Region.objects.all():
        runtime = runtime_of(region)
        try:
            observed, capacity = _by_owner(runtime.observe()), runtime.capacity()
        except Unavailable as problem:
            log.warning("Region %s can't be asked: %s", region.slug, problem)
            continue
        loaded = facts.load(Endpoint.objects.living().filter(region=region).order_by("id"), at)
        ended = _ended(loaded, observed)
        for one in loaded:
            if _is_due(one, observed.get(one.facts.owner, {}), ended, capacity, at, turn):
                wake(one.endpoint.pk)
                woken.append(one.endpoint.pk)
        _end_orphans(runtime, observed, {one.facts.owner for one in loaded})
    return woken


def _by_owner(observed: Mapping[str, Observed]) -> dict[str, dict[str, Observed]]:
    grouped: dict[str, dict[str, Observed]] = {}
    for name, seen in observed.items():
        grouped.setdefault(seen.owner, {})[name] = seen
    return grouped


def _ended(loaded: list[Loaded], observed: Mapping[str, Mapping[str, Observed]]) -> frozenset[str]:
    live = {one.name for each in loaded for one in each.facts.instances}
    others = [name for mine in observed.values() for name in mine if name not in live]
    if not others:
        return frozenset()
    return frozenset(Instance.objects.filter(name__in=others).values_list("name", flat=True))


def _is_due(
    one: Loaded,
    observed: Mapping[str, Observed],
    ended: frozenset[str],
    capacity: Capacity,
    at: datetime,
    turn: int,
) -> bool:
    known = replace(one.facts, ended=ended)
    wanted = known.deployment.revision if known.deployment else known.serving
    if wanted:
        known = replace(known, room=Room(*facts.room_for(capacity, one.revisions[wanted.id])))
    share = {
        name: seen for name, seen in observed.items() if crc32(name.encode()) % PROBE_SHARE == turn % PROBE_SHARE
    }
    answers = controller.ask(known, share, timezone.now, served=True) if not known.deployment else {}
    planned = plan(known, observed, answers, at)
    return not planned.is_empty or planned.look_again_at is not None


def _end_orphans(runtime: Runtime, observed: Mapping[str, Mapping[str, Observed]], owners: set[str]) -> None:
    """End what runs for an endpoint that is gone."""
    for owner in observed.keys() - owners:
        for revision in {seen.revision for seen in observed[owner].values()}:
            running = [
                name
                for name, seen in observed[owner].items()
                if seen.revision == revision and seen.phase != "exited"
            ]
            if running:
                log.warning("Ending %s: their endpoint is gone", ", ".join(running))
                runtime.apply(Workload(owner=owner, revision=revision, replicas=0, retire=tuple(running)))
