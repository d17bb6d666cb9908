"""The queue in PostgreSQL, as runners use it: claim under a lease, renew, and end or give back.

Whatever a runner writes is guarded by the token of its lease. A request is billed in the transaction that stores
its result, so that whichever runner dies wherever, what has a result is billed once and all else never.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median

import redis
from django.db import connection, transaction
from django.db.models import Count, F, Q, Sum
from django.db.models.functions import Now

from accounts.bell import valkey
from accounts.sealing import box
from gateway.jobs.judge import GONE, HOMELESS, MOST_FAILURES, SUCCEEDED, TOO_OLD, UNREADABLE, Again, End
from gateway.jobs.models import AsyncRequest, AsyncRequestQuerySet, State, ended, telling
from gateway.totals import QUARTER
from monitoring import gateways
from monitoring.models import KeyTraffic, StatusClass

LEASE = timedelta(seconds=30)
HISTORY = 20  # runs that an estimate is made from
SOURCE = "async"  # of billing's evidence
LIMITED, UNREADY = 429, 503


@dataclass(frozen=True)
class Run:
    """One claimed request, as a runner needs it: asked with a key, or by a person with a signed token."""

    pk: int
    request_id: str
    token: uuid.UUID
    endpoint_id: int
    project_id: int
    key_id: int | None
    person_id: int | None
    path: str
    body: bytes
    created_at: datetime
    failures: int


@dataclass(frozen=True)
class Waiting:
    """Of one endpoint: how many could be claimed now, and how many run under a living lease."""

    claimable: int
    running: int


def waiting() -> dict[int, Waiting]:
    """By endpoint, wherever something can be claimed."""
    due = Q(state=State.QUEUED, due_at__lte=Now()) | Q(state=State.RUNNING, lease_until__lt=Now())
    alive = Q(state=State.RUNNING, lease_until__gte=Now())
    counted = AsyncRequest.objects.open().order_by().values("endpoint_id")
    rows = counted.annotate(claimable=Count("pk", filter=due), running=Count("pk", filter=alive))
    found = rows.filter(claimable__gt=0).values_list("endpoint_id", "claimable", "running")
    return {endpoint_id: Waiting(claimable, running) for endpoint_id, claimable, running in found}


def elsewhere(source: str) -> dict[str, int]:
    """Requests in flight at the other gateways, by instance; nothing while Valkey is away."""
    try:
        words = [word for word in gateways.read(valkey()) if word.get("source") != source]
    except (redis.RedisError, OSError):
        return {}
    found: dict[str, int] = {}
    for now in gateways.merge(words).values():
        for name, count in now.in_flight.items():
            found[name] = found.get(name, 0) + count
    return found


@transaction.atomic
def claim(endpoint_id: int, *, capacity: int, busy: int) -> list[Run]:
    """Take as many of the oldest as leave nothing of `capacity` over, `busy` of which is in use.

    One runner at a time counts an endpoint's runs, so that two together don't take more than there is room for.
    """
    if not _alone(endpoint_id):
        return []
    running = AsyncRequest.objects.filter(endpoint=endpoint_id, state=State.RUNNING, lease_until__gte=Now())
    room = capacity - max(busy, running.count())
    if room <= 0:
        return []
    due = AsyncRequest.objects.claimable().filter(endpoint=endpoint_id).order_by("id")
    rows = due.select_for_update(skip_locked=True, no_key=True).defer("answer")[:room]
    return [run for row in rows if (run := _taken(row)) is not None]


def _alone(endpoint_id: int) -> bool:
    with connection.cursor() as cursor:
        name = f"async {endpoint_id}"
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 11))", [name])
        return bool(cursor.fetchone()[0])


def _taken(row: AsyncRequest) -> Run | None:
    """The row, leased; None when it ends here: it killed too many runners, or can't be read any more."""
    failures = row.failures + (row.state == State.RUNNING)
    body = row.opened(row.body)
    if body is None or failures >= MOST_FAILURES:
        _store(AsyncRequest.objects.filter(pk=row.pk), UNREADABLE if body is None else GONE)
        return None
    token = uuid.uuid4()
    AsyncRequest.objects.filter(pk=row.pk).update(
        state=State.RUNNING,
        lease_token=token,
        lease_until=Now() + LEASE,
        started_at=Now(),
        attempts=F("attempts") + 1,
        failures=failures,
    )
    return Run(
        pk=row.pk,
        request_id=row.request_id,
        token=token,
        endpoint_id=row.endpoint_id,
        project_id=row.project_id,
        key_id=row.key_id,
        person_id=row.person_id,
        path=row.path,
        body=body,
        created_at=row.created_at,
        failures=failures,
    )


def renew(tokens: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Prolong these leases; those that are still theirs. A run that isn't among them has been cancelled."""
    mine = AsyncRequest.objects.filter(lease_token__in=tokens, state=State.RUNNING)
    late = mine.filter(lease_until__lt=Now() + LEASE / 2)
    late.update(lease_until=Now() + LEASE)
    return set(mine.values_list("lease_token", flat=True))  # type: ignore[arg-type]  # none is null here


@transaction.atomic
def finish(run: Run, end: End) -> bool:
    """Store how it ended and, with a result, bill it; False when the lease is somebody else's."""
    mine = AsyncRequest.objects.filter(pk=run.pk, lease_token=run.token, state=State.RUNNING)
    won = bool(_store(mine, end))
    if won and end.state == SUCCEEDED:
        _bill(run, end)
    return won


def give_back(run: Run, again: Again) -> bool:
    """Queue it again; False when the lease is somebody else's. What would meet the same now waits as long."""
    due_at = Now() + timedelta(seconds=again.seconds)
    mine = AsyncRequest.objects.filter(pk=run.pk, lease_token=run.token, state=State.RUNNING)
    won = mine.update(
        state=State.QUEUED,
        lease_token=None,
        lease_until=None,
        due_at=due_at,
        status=again.status,
        error_code=again.code[:80],
        failures=F("failures") + int(again.failed),
    )
    alike = AsyncRequest.objects.filter(endpoint=run.endpoint_id, state=State.QUEUED, due_at__lte=Now())
    if again.status == LIMITED:
        alike.filter(key=run.key_id, person=run.person_id).update(due_at=due_at)
    elif again.status == UNREADY:
        alike.update(due_at=due_at)
    return bool(won)


def give_up(at: datetime) -> int:
    """End what has waited for longer than results are kept, and what waits for an endpoint that is gone."""
    opened = AsyncRequest.objects.open().filter(Q(state=State.QUEUED) | Q(lease_until__lt=Now()))
    homeless = _store(opened.exclude(endpoint__deleted_at=None), HOMELESS)
    old = opened.filter(created_at__lt=at)
    return homeless + _store(old, TOO_OLD)


def size(endpoint_id: int) -> tuple[int, int]:
    """How many are open, and the bytes of their bodies."""
    rows = AsyncRequest.objects.open().filter(endpoint=endpoint_id)
    found = rows.aggregate(length=Count("pk"), size=Sum("body_bytes"))
    return found["length"], found["size"] or 0


def estimate(endpoint_id: int, *, lanes: int) -> float | None:
    """Seconds until one more would be done: the median of the last runs, times the turns until its own is over.

    None without a run to learn from. `lanes` is how many can run at once.
    """
    done = AsyncRequest.objects.light().filter(endpoint=endpoint_id, state=State.SUCCEEDED)
    took = [one.ran for one in done.order_by("-finished_at")[:HISTORY] if one.ran is not None]
    if not took or not lanes:
        return None
    ahead = AsyncRequest.objects.open().filter(endpoint=endpoint_id).count()
    return median(took) * -(-(ahead + 1) // lanes)


def _store(rows: AsyncRequestQuerySet, end: End) -> int:
    sealed = box().encrypt(end.answer)
    text = {"answer": sealed, "answer_bytes": len(end.answer)}
    tokens = {"prompt_tokens": end.prompt, "completion_tokens": end.completion}
    last = ended(State(end.state), status=end.status, code=end.code)
    return rows.update(**last, **telling(), **text, **tokens)


def _bill(run: Run, end: End) -> None:
    """Add it to billing's evidence, in the caller's transaction."""
    now = int(time.time())
    row, _ = KeyTraffic.objects.get_or_create(
        endpoint_id=run.endpoint_id,
        revision_id=end.revision_id,
        key_id=run.key_id,
        status_class=StatusClass.SUCCEEDED,
        quarter=datetime.fromtimestamp(now - now % QUARTER, UTC),
        source=SOURCE,
    )
    tokens = end.prompt + end.completion
    KeyTraffic.objects.filter(pk=row.pk).update(
        requests=F("requests") + 1,
        prompt_tokens=F("prompt_tokens") + end.prompt,
        completion_tokens=F("completion_tokens") + end.completion,
        estimated_tokens=F("estimated_tokens") + (tokens if end.estimated else 0),
    )
