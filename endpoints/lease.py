"""One run at a time steers an endpoint: a lease in its row, by the database's clock."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now

from endpoints.models import Endpoint

LENGTH = timedelta(seconds=8)  # after a killed run others wait this long at most
RENEW_AFTER = 2.5  # seconds


class Lost(Exception):
    """Another run holds this endpoint now; what this one planned must not be written."""


class Outdated(Exception):
    """The wish changed while this run was planning; plan anew."""


class Lease:
    """This run's hold on an endpoint."""

    def __init__(self, endpoint_id: int, token: uuid.UUID) -> None:
        self.endpoint_id, self.token = endpoint_id, token
        self.renewed_at = time.monotonic()

    def keep(self) -> None:
        """Renew when a third of it is gone: call it often while working. Raises Lost."""
        if time.monotonic() - self.renewed_at >= RENEW_AFTER:
            self._renew(Q())

    def hold(self, generation: int) -> None:
        """Renew, and lock the row until the transaction ends. Raises Lost, or Outdated if a person's wish came
        after this generation: what was planned before it must not be written over it."""
        self._renew(Q(generation=generation))

    def _renew(self, still: Q) -> None:
        mine = Endpoint.objects.filter(pk=self.endpoint_id, lease_token=self.token)
        if mine.filter(still).update(lease_until=Now() + LENGTH):
            self.renewed_at = time.monotonic()
        elif mine.exists():
            raise Outdated(f"endpoint {self.endpoint_id} was given another wish")
        else:
            raise Lost(f"endpoint {self.endpoint_id} is held by another run")


@contextmanager
def lease(endpoint_id: int) -> Iterator[Lease | None]:
    """A lease held until the block ends; None when another run holds it."""
    token = uuid.uuid4()
    free = Q(lease_until=None) | Q(lease_until__lt=Now())
    row = Endpoint.objects.living().filter(pk=endpoint_id)
    if not row.filter(free).update(lease_token=token, lease_until=Now() + LENGTH):
        yield None
        return
    try:
        yield Lease(endpoint_id, token)
    finally:
        Endpoint.objects.filter(pk=endpoint_id, lease_token=token).update(lease_token=None, lease_until=None)
