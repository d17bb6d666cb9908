"""Short-lived tokens: signed here, believed by every gateway without asking."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt
from django.conf import settings

from accounts.claims import ALGORITHM, AUDIENCE, LONGEST, SHORTEST, USUAL
from accounts.models import ApiKey, Project, Scope, SigningKey, User
from accounts.models.allowance import endpoint_ids_of
from accounts.refused import Refused

MOST_NAMED = 50  # a token travels in a header


@dataclass(frozen=True)
class Issued:
    """`lives` is how many seconds."""

    token: str
    expires_at: datetime
    lives: int


def for_key(
    key: ApiKey, *, at: datetime, lifetime: timedelta = USUAL, endpoints: Collection[str] | None = None
) -> Issued:
    """A token that may what the key may, narrowed to `endpoints` by name if they are given, and never outlives it.

    Raises Refused: lifetime out of range, an endpoint that is not there or that the key may not call.
    """
    if not SHORTEST <= lifetime <= LONGEST:
        least, most = (int(limit.total_seconds()) for limit in (SHORTEST, LONGEST))
        raise Refused(f"A token lives from {least} to {most:,} seconds.", field="expires_in", code="out_of_range")
    ids = None if endpoints is None else _allowed(key, endpoints)
    ends = at + lifetime if key.expires_at is None else min(at + lifetime, key.expires_at)
    return _issue(f"key:{key.pk}", key.project_id, endpoint_ids=ids, key_id=key.pk, at=at, ends=ends)


def for_person(user: User, project: Project, *, at: datetime, endpoint_ids: list[int]) -> Issued:
    """A token for a member who operates the project's endpoints; what it calls counts for no key."""
    return _issue(f"person:{user.pk}", project.pk, endpoint_ids=endpoint_ids, key_id=None, at=at, ends=at + USUAL)


def _allowed(key: ApiKey, names: Collection[str]) -> list[int]:
    if not 1 <= len(names) <= MOST_NAMED:
        said = f"Name from 1 to {MOST_NAMED} endpoints, or leave this out for all that the key may call."
        raise Refused(said, field="endpoints", code="out_of_range")
    ids = endpoint_ids_of(key.project, names)
    allowed = key.allowance.endpoint_ids
    if allowed is not None and not set(ids) <= set(allowed):
        raise Refused("The key may not call all of these.", field="endpoints", code="endpoint_not_allowed")
    return ids


def _issue(
    subject: str,
    project_id: int,
    *,
    endpoint_ids: list[int] | None,
    key_id: int | None,
    at: datetime,
    ends: datetime,
) -> Issued:
    kid, private = SigningKey.current(at=at)
    begins, until = int(at.timestamp()), int(ends.timestamp())
    claims = {
        "iss": settings.CONSOLE_URL,
        "aud": AUDIENCE,
        "sub": subject,
        "iat": begins,
        "exp": until,
        "jti": uuid.uuid4().hex,
        "project": project_id,
        "key": key_id,
        "endpoints": endpoint_ids,
        "scope": Scope.INFERENCE.value,
    }
    token = jwt.encode(claims, private, ALGORITHM, headers={"kid": kid})
    return Issued(token, datetime.fromtimestamp(until, UTC), until - begins)
