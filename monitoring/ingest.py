"""Log lines of instances, from their runtime into the database and on to those who follow.

Lines are numbered without gaps per instance. The runtime's own numbering tells whether some were lost; the
line after them carries `gap`. One collector works on a region at a time, and the constraint on
(instance, sequence) guards the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol

from django.core.cache import cache
from django.db import connection
from django.db.models import OuterRef, Q, QuerySet, Subquery

from endpoints import bell
from endpoints.models import Instance, Region, Secret
from endpoints.models.secret import Undecryptable
from endpoints.runtimes.base import LogLine as Written
from endpoints.runtimes.base import Unavailable
from monitoring import logs, redact
from monitoring.models import LogLine

log = logging.getLogger(__name__)

AT_ONCE = 1_000  # lines asked of the runtime in one call
ROUNDS = 5  # calls for one instance in one collection
ENDED_WITHIN = timedelta(hours=24)  # how long after its end an instance's log is still asked for
SETTLES_AFTER = timedelta(seconds=3)  # a log that gave nothing this long after the end is drained
LOCK_SPACE = 0x7469_7201  # the advisory locks of log collection


class Source(Protocol):
    """The two verbs of a runtime that log collection needs."""

    def logs(self, name: str, after: int, limit: int) -> list[Written]: ...
    def forget(self, name: str) -> None: ...


def collect(region: Region, runtime: Source, *, at: datetime) -> int:
    """Bring the region's new lines in; how many. 0 when another collector is at it."""
    with _alone(region) as mine:
        if not mine:
            return 0
        instances = list(due(region, at=at))
        hidden = secrets_of(instances)
        drained = cache.get_many([_mark(one) for one in instances if one.ended_at])
        count = 0
        for instance in instances:
            if _mark(instance) in drained:
                continue
            try:
                count += _follow(instance, runtime, hidden.get(instance.pk, ()), at=at)
            except Unavailable as problem:
                log.warning("No log lines of %s: %s", instance.name, problem)
        return count


def due(region: Region, *, at: datetime) -> QuerySet[Instance]:
    """Live and lately ended instances, each with the `last_sequence` and `last_offset` it was read to."""
    last = LogLine.objects.filter(instance=OuterRef("pk")).order_by("-sequence")
    return (
        Instance.objects.filter(endpoint__region=region)
        .filter(Q(ended_at=None) | Q(ended_at__gte=at - ENDED_WITHIN))
        .select_related("endpoint", "revision")
        .annotate(
            last_sequence=Subquery(last.values("sequence")[:1]), last_offset=Subquery(last.values("offset")[:1])
        )
        .order_by("pk")
    )


def secrets_of(instances: Sequence[Instance]) -> dict[int, tuple[str, ...]]:
    """By instance: the values of the project's secrets that its revision names."""
    wanted = {one.pk: {(one.endpoint.project_id, name) for name in _names(one.revision.spec)} for one in instances}
    pairs = {pair for some in wanted.values() for pair in some}
    if not pairs:
        return {}
    rows = Secret.objects.filter(
        project_id__in={project for project, _ in pairs}, name__in={name for _, name in pairs}
    )
    values: dict[tuple[int, str], str] = {}
    for secret in rows:
        try:
            values[secret.project_id, secret.name] = secret.reveal()
        except Undecryptable:
            continue  # no instance can have got it either
    return {key: tuple(values[pair] for pair in some if pair in values) for key, some in wanted.items()}


def _names(spec: dict[str, Any]) -> set[str]:
    named = set(spec.get("environment", {}).get("secrets", {}).values())
    return named | ({token} if (token := spec.get("source", {}).get("token_secret")) else set())


def _follow(instance: Instance, runtime: Source, secrets: Sequence[str], *, at: datetime) -> int:
    sequence = instance.last_sequence or 0  # type: ignore[attr-defined]
    offset = instance.last_offset or 0  # type: ignore[attr-defined]
    count = 0
    for _ in range(ROUNDS):
        written = runtime.logs(instance.name, offset, AT_ONCE)
        if not written:
            break
        rows = rows_of(instance, written, sequence=sequence, offset=offset, secrets=secrets)
        LogLine.objects.bulk_create(rows, ignore_conflicts=True)
        lines = bell.live_message(message_of(instance.name, rows))
        bell.publish([(bell.endpoint_group(instance.endpoint_id), lines)])
        sequence, offset, count = rows[-1].sequence, rows[-1].offset, count + len(rows)
        if len(written) < AT_ONCE:
            break
    if not count and instance.ended_at and at - instance.ended_at >= SETTLES_AFTER:
        runtime.forget(instance.name)
        cache.set(_mark(instance), 1, timeout=2 * int(ENDED_WITHIN.total_seconds()))
    return count


def rows_of(
    instance: Instance, written: Sequence[Written], *, sequence: int, offset: int, secrets: Sequence[str]
) -> list[LogLine]:
    """Unsaved rows that go on after `sequence` and `offset`, cleaned; `gap` where offsets jump."""
    rows = []
    for line in written:
        sequence += 1
        rows.append(
            LogLine(
                instance=instance,
                endpoint_id=instance.endpoint_id,
                sequence=sequence,
                offset=line.offset,
                at=line.at,
                stream=line.stream[:6],
                text=redact.clean(line.text, secrets),
                gap=line.offset != offset + 1,
            )
        )
        offset = line.offset
    return rows


def message_of(instance: str, rows: Sequence[LogLine]) -> dict[str, Any]:
    """What those who follow get: `first` and `last` let a socket see that it missed lines between."""
    lines = logs.entries(rows)
    return {
        "type": "log",
        "instance": instance,
        "first": rows[0].sequence,
        "last": rows[-1].sequence,
        "lines": lines,
    }


def _mark(instance: Instance) -> str:
    return f"log-drained:{instance.pk}"


@contextmanager
def _alone(region: Region) -> Iterator[bool]:
    """True while this process is the region's only collector; the lock goes with the connection if we die."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [LOCK_SPACE, region.pk])
        mine = bool(cursor.fetchone()[0])
    try:
        yield mine
    finally:
        if mine:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [LOCK_SPACE, region.pk])
