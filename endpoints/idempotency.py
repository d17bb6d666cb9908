"""A POST that may be sent twice does its work once.

The same `Idempotency-Key` with the same body answers with the same endpoint; with another body it is refused.
Two at once wait for each other on an advisory lock of the database, because between looking and launching the
model's source may be asked over the network, which no transaction should wait for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from accounts.models import Project
from accounts.refused import Refused
from endpoints.models import Endpoint, IdempotentRequest
from endpoints.spec import Spec

LONGEST_KEY = 200


def once(
    project: Project, key: str, body: Any, *, check: Callable[[], Spec], launch: Callable[[Spec], Endpoint]
) -> tuple[Endpoint, bool]:
    """The endpoint that this request made, and whether this call made it.

    `check` may take its time; `launch` runs in the transaction that remembers it. Raises Refused, or what they do.
    """
    if len(key) > LONGEST_KEY or not key.isprintable():
        raise Refused(
            f"An Idempotency-Key has at most {LONGEST_KEY} printable characters.",
            field="Idempotency-Key",
            code="bad_idempotency_key",
        )
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    with _turn(f"{project.pk} {key}"):
        done = IdempotentRequest.objects.select_related("endpoint").filter(project=project, key=key).first()
        if done is not None:
            if done.digest != digest:
                raise Refused("This Idempotency-Key was used with another body.", code="idempotency_key_reused")
            return done.endpoint, False
        spec = check()
        with transaction.atomic():
            endpoint = launch(spec)
            IdempotentRequest.objects.create(project=project, key=key, digest=digest, endpoint=endpoint)
        return endpoint, True


@contextmanager
def _turn(name: str) -> Iterator[None]:
    """One after the other, whichever process they are in."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 7))", [name])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 7))", [name])
