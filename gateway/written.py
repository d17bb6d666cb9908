"""Counts into the database: whole rows that replace their own, so that writing twice changes nothing."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from django.db import IntegrityError, transaction
from django.db.models import Model

from accounts.models import ApiKey
from endpoints.models import Endpoint, Revision
from gateway.totals import ABORTED, CLIENT_ERROR, OK, SERVER_ERROR, KeyTotal, MinuteKey, QuarterKey, Rows, Total
from monitoring.models import KeyTraffic, Traffic

log = logging.getLogger(__name__)

MINUTE_KEY = ("endpoint", "revision", "minute", "source")
QUARTER_KEY = ("endpoint", "revision", "key", "status_class", "quarter", "source")
BATCH = 500

Row = TypeVar("Row", Traffic, KeyTraffic)


def write(batch: Sequence[Rows], used: Mapping[int, float]) -> None:
    """Upsert everything in one transaction. Rows whose endpoint, revision or key is gone are left out:
    nobody is left whose evidence they would be."""
    minutes = [minute_row(rows.source, key, total) for rows in batch for key, total in rows.minutes.items()]
    quarters = [quarter_row(rows.source, key, total) for rows in batch for key, total in rows.quarters.items()]
    try:
        _write(minutes, quarters, used)
    except IntegrityError:
        kept_minutes, kept_quarters = list(_with_parents(minutes)), list(_with_parents(quarters))
        lost = len(minutes) + len(quarters) - len(kept_minutes) - len(kept_quarters)
        log.warning("%d counts were left out: their endpoint, revision or key is gone", lost)
        _write(kept_minutes, kept_quarters, used)


@transaction.atomic
def _write(minutes: Sequence[Traffic], quarters: Sequence[KeyTraffic], used: Mapping[int, float]) -> None:
    Traffic.objects.bulk_create(
        minutes,
        batch_size=BATCH,
        update_conflicts=True,
        unique_fields=MINUTE_KEY,
        update_fields=_rest(Traffic, MINUTE_KEY),
    )
    KeyTraffic.objects.bulk_create(
        quarters,
        batch_size=BATCH,
        update_conflicts=True,
        unique_fields=QUARTER_KEY,
        update_fields=_rest(KeyTraffic, QUARTER_KEY),
    )
    seen = [ApiKey(pk=pk, last_used_at=_moment(at)) for pk, at in used.items()]
    ApiKey.objects.bulk_update(seen, ["last_used_at"], batch_size=BATCH)


def minute_row(source: str, key: MinuteKey, total: Total) -> Traffic:
    endpoint_id, revision_id, start = key
    latency_first, latency_buckets = total.latency.slice()
    ttft_first, ttft_buckets = total.ttft.slice()
    return Traffic(
        endpoint_id=endpoint_id,
        revision_id=revision_id,
        minute=_moment(start),
        source=source,
        requests=total.requests,
        succeeded=total.classes.get(OK, 0),
        client_errors=total.classes.get(CLIENT_ERROR, 0),
        server_errors=total.classes.get(SERVER_ERROR, 0),
        aborted=total.classes.get(ABORTED, 0),
        latency_first=latency_first,
        latency_buckets=latency_buckets,
        latency_sum_us=total.latency.sum_us,
        latency_max_us=total.latency.max_us,
        ttft_first=ttft_first,
        ttft_buckets=ttft_buckets,
        ttft_sum_us=total.ttft.sum_us,
        ttft_max_us=total.ttft.max_us,
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        estimated_tokens=total.estimated_tokens,
        request_bytes=total.bytes_in,
        response_bytes=total.bytes_out,
    )


def quarter_row(source: str, key: QuarterKey, total: KeyTotal) -> KeyTraffic:
    endpoint_id, revision_id, key_id, status_class, start = key
    return KeyTraffic(
        endpoint_id=endpoint_id,
        revision_id=revision_id,
        key_id=key_id,
        status_class=status_class,
        quarter=_moment(start),
        source=source,
        requests=total.requests,
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        estimated_tokens=total.estimated_tokens,
    )


def _with_parents(rows: Sequence[Row]) -> Iterator[Row]:
    endpoints = _existing(Endpoint, {row.endpoint_id for row in rows})
    revisions = _existing(Revision, {row.revision_id for row in rows})
    keys = _existing(ApiKey, {key_of(row) for row in rows} - {None}) | {None}
    for row in rows:
        if row.endpoint_id in endpoints and row.revision_id in revisions and key_of(row) in keys:
            yield row


def key_of(row: Traffic | KeyTraffic) -> int | None:
    return row.key_id if isinstance(row, KeyTraffic) else None  # minutes have no key


def _existing(model: type[Endpoint | Revision | ApiKey], ids: set[Any]) -> set[Any]:
    return set(model._default_manager.filter(pk__in=ids).values_list("pk", flat=True))


def _rest(model: type[Model], key: Sequence[str]) -> list[str]:
    return [field.name for field in model._meta.concrete_fields if field.name not in (*key, "id")]


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
