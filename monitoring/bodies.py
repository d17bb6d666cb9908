"""Keeping bodies: an endpoint's wish to, and who may read what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction

from accounts import bell
from accounts.models import ApiKey, Project, User
from accounts.roles import Right
from endpoints.models import Endpoint, Secret
from endpoints.models.secret import Undecryptable
from monitoring.models import BodySampling, RequestRecord
from monitoring.redact_bodies import Redaction

MOST_PATTERNS = 20


def may_read(user: Any, endpoint: Endpoint) -> bool:
    """What callers said is for those who operate the endpoint; the rest of a request is for all who read logs."""
    return Project.objects.where(user, Right.OPERATE).filter(pk=endpoint.project_id).exists()


@transaction.atomic
def keep(endpoint: Endpoint, *, one_in: int, patterns: Sequence[str], by: User | ApiKey) -> None:
    """Keep the bodies of one request in so many from now on, without what the patterns match."""
    BodySampling.objects.update_or_create(
        endpoint=endpoint, defaults={"one_in": one_in, "patterns": list(patterns)}
    )
    own = f", {len(patterns)} redaction pattern{'s'[: len(patterns) != 1]} of its own" if patterns else ""
    message = f"Keeps the bodies of one request in {one_in:,}{own}."
    endpoint.record("endpoint.bodies_kept", by=by, message=message)
    bell.ring_gateway()


@transaction.atomic
def stop(endpoint: Endpoint, *, by: User | ApiKey) -> None:
    """Keep none from now on, and remove those that were kept. Does nothing where none are."""
    if not BodySampling.objects.filter(endpoint=endpoint).delete()[0]:
        return
    rows = RequestRecord.objects.filter(endpoint=endpoint).exclude(request_body="", answer_body="")
    count = rows.update(request_body="", answer_body="")
    message = f"Keeps no bodies any more; those of {count:,} request{'s'[: count != 1]} were removed."
    endpoint.record("endpoint.bodies_stopped", by=by, message=message)
    bell.ring_gateway()


def redactions(endpoints: set[int]) -> dict[int, Redaction]:
    """By endpoint, of those that keep bodies now: what is taken out of them before they are stored.

    To be asked in the transaction that stores them: until its end nobody can stop the keeping, which removes
    what was kept.
    """
    wishes = BodySampling.objects.filter(endpoint__in=endpoints).select_related("endpoint")
    return {
        wish.endpoint_id: Redaction(wish.patterns, secrets_of(wish.endpoint.project_id))
        for wish in wishes.select_for_update(of=("self",))
    }


def secrets_of(project_id: int) -> list[str]:
    values = []
    for secret in Secret.objects.filter(project_id=project_id):
        try:
            values.append(secret.reveal())
        except Undecryptable:
            continue  # nobody can have got it either
    return values
