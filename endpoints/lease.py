"""One run at a time steers an endpoint: a lease in its row, by the database's clock."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now

from endpoints.models import Endpoint

LENGTH = timedelta(seconds=30)


class Lost(Exception):
    """Another run holds this endpoint now; what this one planned must not be written."""


@contextmanager
def lease(endpoint_id: int) -> Iterator[uuid.UUID | None]:
    """The token of a lease held until the block ends; None when another run holds it."""
    token = uuid.uuid4()
    free = Q(lease_until=None) | Q(lease_until__lt=Now())
    row = Endpoint.objects.living().filter(pk=endpoint_id)
    if not row.filter(free).update(lease_token=token, lease_until=Now() + LENGTH):
        yield None
        return
    try:
        yield token
    finally:
        Endpoint.objects.filter(pk=endpoint_id, lease_token=token).update(lease_token=None, lease_until=None)


def hold(endpoint_id: int, token: uuid.UUID) -> None:
    """Renew the lease and lock the row until the transaction ends. Raises Lost."""
    mine = Endpoint.objects.filter(pk=endpoint_id, lease_token=token)
    if not mine.update(lease_until=Now() + LENGTH):
        raise Lost(f"endpoint {endpoint_id} is held by another run")
