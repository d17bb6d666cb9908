"""A POST that may be sent twice does its work once.

The same `Idempotency-Key` with the same body answers with what it made then; with another body it is refused.
Two at once wait for each other on an advisory lock of the database, because between looking and launching the
model's source may be asked over the network, which no transaction should wait for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from django.db import connection, transaction

from accounts.models import Project
from accounts.refused import Refused
from endpoints.models import Endpoint, IdempotentRequest, VersionImport

LONGEST_KEY = 200
Checked = TypeVar("Checked")
Made = TypeVar("Made", bound=Endpoint | VersionImport)


def once(
    project: Project, key: str, body: Any, *, check: Callable[[], Checked], launch: Callable[[Checked], Made]
) -> tuple[Made, bool]:
    """What this request made, and whether this call made it; bodies of two routes are never the same.

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
        done = IdempotentRequest.objects.filter(project=project, key=key).first()
        if done is not None:
            if done.digest != digest:
                raise Refused("This Idempotency-Key was used with another body.", code="idempotency_key_reused")
            return cast(Made, done.endpoint or done.version_import), False
        checked = check()
        with transaction.atomic():
            made = launch(checked)
            column = "endpoint" if isinstance(made, Endpoint) else "version_import"
            IdempotentRequest.objects.create(project=project, key=key, digest=digest, **{column: made})
        return made, True


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
