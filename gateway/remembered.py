"""Passports into the database. Writing one again only adds what it turned out to be."""

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from django.db import IntegrityError

from accounts.models import ApiKey
from endpoints.models import Endpoint, Revision
from gateway.access_log import shown
from gateway.passport import Passport
from monitoring.models import RequestRecord

log = logging.getLogger(__name__)

BATCH = 500


def write(batch: Sequence[Passport]) -> None:
    """Upsert all. What names an endpoint that is gone is left out; a revision or key that is gone is none."""
    rows = [row(passport) for passport in batch]
    try:
        _write(rows)
    except IntegrityError:
        kept = _with_parents(rows)
        if len(kept) < len(rows):
            log.warning("%d requests were not remembered: their endpoint is gone", len(rows) - len(kept))
        _write(kept)


def _write(rows: Sequence[RequestRecord]) -> None:
    RequestRecord.objects.bulk_create(
        rows, batch_size=BATCH, update_conflicts=True, unique_fields=["id"], update_fields=["slow"]
    )


def row(passport: Passport) -> RequestRecord:
    one, record = passport.ended, passport.ended.record
    return RequestRecord(
        id=passport.id,
        request_id=one.request_id[:128],
        at=datetime.fromtimestamp(record.at, UTC),
        endpoint_id=record.endpoint_id,
        revision_id=record.revision_id or None,
        key_id=record.key_id or None,
        instance=one.instance,
        method=one.method[:16],
        path=shown(one.path),
        status=record.status,
        code=one.code,
        stream=one.stream,
        cold_start=one.cold,
        slow=passport.slow,
        sample=passport.sample,
        queue_us=one.queue_us,
        connect_us=one.connect_us,
        first_byte_us=one.first_byte_us,
        ttft_us=record.ttft_us,
        total_us=record.latency_us,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        estimated=record.estimated,
        request_bytes=record.bytes_in,
        response_bytes=record.bytes_out,
    )


def _with_parents(rows: Sequence[RequestRecord]) -> list[RequestRecord]:
    endpoints = _existing(Endpoint, {row.endpoint_id for row in rows})
    revisions = _existing(Revision, (row.revision_id for row in rows))
    keys = _existing(ApiKey, (row.key_id for row in rows))
    kept = [row for row in rows if row.endpoint_id in endpoints]
    for one in kept:
        one.revision_id = one.revision_id if one.revision_id in revisions else None
        one.key_id = one.key_id if one.key_id in keys else None
    return kept


def _existing(model: type[Endpoint | Revision | ApiKey], ids: Iterable[int | None]) -> set[int]:
    wanted = {one for one in ids if one is not None}
    return set(model._default_manager.filter(pk__in=wanted).values_list("pk", flat=True))
