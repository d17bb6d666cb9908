"""The timer behind every doorbell: looks at all endpoints at once and wakes a run where one is due.

It reads and plans but writes nothing: in a steady state a sweep costs a handful of queries and no write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from zlib import crc32

from django.db import connection
from django.utils import timezone

from endpoints import bell, controller, facts, probes
from endpoints.facts import Loaded
from endpoints.models import Endpoint, Region
from endpoints.planner import EndpointFacts, Probe, needs_room, plan
from endpoints.probes import Asked, Prober
from endpoints.regions import runtime_of
from endpoints.runtimes.base import Observed, PartlyUnavailable, Phase, Rejected, Runtime, Unavailable, Workload

log = logging.getLogger(__name__)

LOCK = 0x7149_0001  # advisory: one sweep at a time, whoever is first
PACE = timedelta(seconds=2)  # the next sweep gets to what is due later than this
PROBE_SHARE = 5  # each sweep probes one in so many of the instances that serve
PROBE_SECONDS = 3.0  # all probes of a sweep together; who was not asked by then is asked another time
MESSAGE_SECONDS = 4.0  # a wake that no worker took by then is dropped: later sweeps have sent others
BROKEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
Wake = Callable[[int], object]
Grouped = Mapping[str, Mapping[str, Observed]]
_probers = ThreadPoolExecutor(max_workers=32, thread_name_prefix="sweep")


def wake(endpoint_id: int) -> None:
    bell.send("endpoints.reconcile", endpoint_id, expires=MESSAGE_SECONDS)


def sweep(
    *,
    at: datetime | None = None,
    wake: Wake = wake,
    turn: int | None = None,
    prober: Prober = probes.probe,
) -> list[int]:
    """Wake a run for every endpoint that has something to do; the ids, for tests and benchmarks."""
    at = at or timezone.now()
    turn = int(at.timestamp() / PACE.total_seconds()) if turn is None else turn
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return []
        try:
            return [
                endpoint_id
                for region in Region.objects.all()
                for endpoint_id in _sweep(region, at, wake, turn, prober)
            ]
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _sweep(region: Region, at: datetime, wake: Wake, turn: int, prober: Prober) -> list[int]:
    try:
        runtime = runtime_of(region)
        seen, rows = _look(runtime, Endpoint.objects.living().filter(region=region).order_by("id"))
        loaded = facts.load(rows, seen, at, in_flight=facts.carried())
        observed = _by_owner(seen)
        loaded = _with_room(loaded, observed, runtime)
    except Unavailable as problem:
        log.warning("Region %s can't be asked: %s", region.slug, problem)
        return []
    answers = _answers(loaded, observed, turn, prober)
    due = [one.endpoint.pk for one in loaded if _is_due(one, observed, answers, at)]
    for endpoint_id in due:
        wake(endpoint_id)
    _end_orphans(runtime, observed, {one.facts.owner for one in loaded})
    return due


def _look(runtime: Runtime, rows: Iterable[Endpoint]) -> tuple[dict[str, Observed], Iterable[Endpoint]]:
    """What runs, and the endpoints of which that is known: those elsewhere if a part of the region is away."""
    try:
        return runtime.observe(), rows
    except PartlyUnavailable as problem:
        log.warning("A part of a region can't be asked: %s", problem)
    seen: dict[str, Observed] = {}
    known = []
    for row in rows:
        with suppress(Unavailable):
            seen |= runtime.observe(row.owner)
            known.append(row)
    return seen, known


def _by_owner(observed: Mapping[str, Observed]) -> Grouped:
    grouped: dict[str, dict[str, Observed]] = {}
    for name, seen in observed.items():
        grouped.setdefault(seen.owner, {})[name] = seen
    return grouped


def _with_room(loaded: Sequence[Loaded], observed: Grouped, runtime: Runtime) -> list[Loaded]:
    """The facts, with the room there is for those that may start something; the runtime is asked at most once."""
    capacity = lru_cache(runtime.capacity)

    def roomy(known: EndpointFacts) -> EndpointFacts:
        wanted = known.deployment.revision if known.deployment else known.serving
        if wanted and needs_room(known, observed.get(known.owner, {})):
            return replace(known, room=facts.room_for(capacity(), wanted))
        return known

    return [replace(one, facts=roomy(one.facts)) for one in loaded]


def _answers(loaded: Sequence[Loaded], observed: Grouped, turn: int, prober: Prober) -> dict[str, Probe]:
    """Probe all that serve and whose turn it is, at once. What was never served is for its own run to ask."""
    asked: list[Asked] = []
    for one in loaded:
        if one.facts.deployment is None:
            mine = controller.questions(one.facts, observed.get(one.facts.owner, {}), served=True)
            silent = {row.name for row in one.facts.instances if row.probe_failures}
            asked += [each for each in mine if not each.prove and (each.name in silent or _its_turn(each, turn))]
    waiting = {_probers.submit(prober, each, timezone.now): each.name for each in asked}
    done, late = wait(waiting, timeout=PROBE_SECONDS)
    for future in late:
        future.cancel()
    return {waiting[future]: future.result() for future in done}


def _its_turn(one: Asked, turn: int) -> bool:
    return crc32(one.name.encode()) % PROBE_SHARE == turn % PROBE_SHARE


def _is_due(one: Loaded, observed: Grouped, answers: Mapping[str, Probe], at: datetime) -> bool:
    """Whether there is something to do before the next sweep. One row that can't be planned stops no other."""
    try:
        planned = plan(one.facts, observed.get(one.facts.owner, {}), answers, at)
    except BROKEN:
        log.exception("Endpoint %s can't be planned", one.endpoint)
        return False
    soon = planned.look_again_at is not None and planned.look_again_at <= at + PACE
    return soon or not planned.is_empty


def _end_orphans(runtime: Runtime, observed: Grouped, owners: set[str]) -> None:
    """End what runs for an endpoint that is gone. Another region may share this place: its own are left alone."""
    running: dict[tuple[str, int], list[str]] = {}
    for owner in observed.keys() - owners:
        for name, seen in observed[owner].items():
            if seen.phase != Phase.EXITED:
                running.setdefault((owner, seen.revision), []).append(name)
    living = {one.owner for one in Endpoint.objects.living().only("id")} if running else set()
    for (owner, revision), names in running.items():
        if owner in living:
            continue
        log.warning("Ending %s: their endpoint is gone", ", ".join(names))
        try:
            runtime.apply(Workload(owner=owner, revision=revision, replicas=0, retire=tuple(names)))
        except (Unavailable, Rejected) as problem:
            log.warning("%s could not be ended: %s", owner, problem)
