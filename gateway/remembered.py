"""Passports into the database. Writing one again only adds what it turned out to be."""

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from django.db import IntegrityError, transaction

from accounts.models import ApiKey
from endpoints.models import Endpoint, Revision
from gateway.access_log import shown
from gateway.bodies import LONGEST, Bodies
from gateway.passport import Passport
from monitoring.bodies import redactions
from monitoring.models import RequestRecord
from monitoring.redact_bodies import Redaction

log = logging.getLogger(__name__)

BATCH = 500


def write(batch: Sequence[Passport]) -> None:
    """Upsert all. What names an endpoint that is gone is left out; a revision or key that is gone is none."""
    try:
        _write([(row(passport), passport.ended.bodies) for passport in batch])
    except IntegrityError:
        _write(_with_parents([(row(passport), passport.ended.bodies) for passport in batch]))


Told = tuple[RequestRecord, Bodies | None]


@transaction.atomic
def _write(told: Sequence[Told]) -> None:
    speaking = {one.endpoint_id for one, bodies in told if bodies is not None}
    found = redactions(speaking) if speaking else {}
    for one, bodies in told:
        if bodies is not None and (redaction := found.get(one.endpoint_id)) is not None:
            one.request_body, one.answer_body = texts(bodies, redaction)
    rows = [one for one, _ in told]
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


def texts(bodies: Bodies, redaction: Redaction) -> tuple[str, str]:
    """Both bodies as they may be stored: redacted, or a word on why there is nothing."""
    answer = redaction.stream if bodies.streamed else redaction.body
    return (
        redaction.body(bodies.request) or absent(bodies.request_bytes),
        answer(bytes(bodies.answer)) or absent(bodies.answer_bytes),
    )


def absent(size: int) -> str:
    if not size:
        return ""
    why = "longer than is kept" if size > LONGEST else "no JSON, which is not kept"
    return f"[{size:,} bytes, {why}]"


def _with_parents(told: Sequence[Told]) -> list[Told]:
    endpoints = _existing(Endpoint, {one.endpoint_id for one, _ in told})
    revisions = _existing(Revision, (one.revision_id for one, _ in told))
    keys = _existing(ApiKey, (one.key_id for one, _ in told))
    kept = [(one, bodies) for one, bodies in told if one.endpoint_id in endpoints]
    if len(kept) < len(told):
        log.warning("%d requests were not remembered: their endpoint is gone", len(told) - len(kept))
    for one, _ in kept:
        one.revision_id = one.revision_id if one.revision_id in revisions else None
        one.key_id = one.key_id if one.key_id in keys else None
    return kept


def _existing(model: type[Endpoint | Revision | ApiKey], ids: Iterable[int | None]) -> set[int]:
    wanted = {one for one in ids if one is not None}
    return set(model._default_manager.filter(pk__in=wanted).values_list("pk", flat=True))
