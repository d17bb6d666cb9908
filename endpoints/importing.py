"""Bringing versions from elsewhere into the registry: the worker's side of an import.

One import runs at a time, so that deployments don't wait behind them; the others wait for their turn. A run may be
cut off anywhere: the row says how far it came, the store keeps what came, and the timer wakes another worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from django.db import transaction
from django.utils import timezone

from accounts.refused import Refused
from endpoints import inspecting
from endpoints.models import ImportState, Upload, VersionImport
from endpoints.models.registry import store
from endpoints.models.version_draft import UPLOAD_LASTS
from endpoints.origin import source_of
from endpoints.sources import SourceProblem
from endpoints.sources import store as storage

log = logging.getLogger(__name__)

LEASE: Final = timedelta(seconds=30)
LOOKING: Final = timedelta(seconds=150)  # that linking the files and looking through them may take
AGAIN: Final = timedelta(seconds=10)  # between two tries when the trouble may pass
GIVE_UP: Final = timedelta(minutes=30)  # without getting further
WRITE_EVERY: Final = 0.5  # seconds
MISSING: Final = "The files were taken off the disk while they came. Trying again."
RELATED: Final = ("model__project", "draft__model", "draft__parent__model", "created_by", "created_by_key")
Clock = Callable[[], datetime]


class Ended(Exception):
    """The import was cancelled, or taken over, while we worked on it."""


class Report:
    """Writes how far it is and renews the lease; raises Ended once the import isn't ours any more."""

    def __init__(self, of: VersionImport, clock: Clock) -> None:
        self.of, self.clock, self.best, self.written_at = of, clock, of.bytes_done, 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.written_at < WRITE_EVERY and (done < total or not total):
            return
        self.written_at = now
        further = {"trouble_since": None, "message": "", "reason": ""} if done > self.best else {}
        self._write(LEASE, **({"bytes_done": done} if total else {}), **further)

    def hold(self, span: timedelta) -> None:
        """Keep it for so long without another word."""
        self._write(span)

    def _write(self, lease: timedelta, **columns: object) -> None:
        if not self.of.change(ImportState.RUNNING, lease_until=self.clock() + lease, **columns):
            raise Ended


def run(import_id: str, *, clock: Clock = timezone.now) -> bool:
    """Go on with an import as far as it goes; true once its version is published."""
    one = _take(import_id, clock())
    if one is None:
        return False
    report = Report(one, clock)
    try:
        root = _fetch(one, report)
        report.hold(LOOKING)
        _place(one, root, clock())
        published = _publish(one, clock())
    except Ended:
        log.info("The import of %s was ended", one)
        return False
    except SourceProblem as problem:
        _failed(one, problem, clock())
        return False
    except Refused as refused:
        one.fail(refused.code, str(refused), at=clock())
        return False
    except OSError as problem:
        said = f"The model can't be kept on the console's machine: {problem.strerror or problem}."
        _failed(one, SourceProblem("store_failed", said, passing=True), clock())
        return False
    finally:
        resume(at=clock())
    return published


def resume(*, at: datetime) -> bool:
    """Wake a worker for the import that waits longest, if none is at work on one."""
    if VersionImport.objects.running().filter(lease_until__gt=at).exists():
        return False
    due = VersionImport.objects.due(at).order_by("created_at").first()
    if due is None:
        return False
    due.ring()
    return True


@transaction.atomic
def _take(import_id: str, at: datetime) -> VersionImport | None:
    """The import with a lease on it, unless another one is being worked on."""
    rows = {str(row.pk): row for row in VersionImport.objects.select_for_update().running()}
    one = rows.get(import_id)
    busy = any(row.lease_until and row.lease_until > at for row in rows.values())
    if one is None or busy or (one.wait_until and one.wait_until > at):
        return None
    trouble = one.trouble_since or (at if one.lease_until else None)  # a lease that ran out: its worker died
    if trouble and at - trouble > GIVE_UP:
        one.fail("stuck", one.message or "It was begun again and again, and came no further.", at=at)
        return None
    one.change(
        ImportState.RUNNING,
        lease_until=at + LEASE,
        wait_until=None,
        taken_at=at,
        bytes_before=one.bytes_done,
        trouble_since=trouble,
    )
    if one.draft:
        one.draft.touch(at)
    return VersionImport.objects.select_related(*RELATED).get(pk=one.pk)


def _fetch(one: VersionImport, report: Report) -> Path:
    """The folder that the files lie in once all are here."""
    paths = [str(file["path"]) for file in one.files]
    project = one.model.project
    if project is None:
        raise Refused("Every project shares this model, so no project changes it.", code="shared")
    first = source_of(one.spec, project).fetch(store(), report, paths)
    return first.parents[len(Path(paths[0]).parts) - 1]


def _place(one: VersionImport, root: Path, at: datetime) -> None:
    """Link the files into the draft's folder, and list them as if they had been uploaded."""
    if one.draft is None:
        raise Ended
    places = {str(file["path"]): root / str(file["path"]) for file in one.files}
    uploads = []
    try:
        sums = storage.digests(store(), list(places.values()))
        for path, place in places.items():
            upload = Upload(draft=one.draft, path=path, sha256=sums[place], expires_at=at + UPLOAD_LASTS)
            upload.size = upload.offset = place.stat().st_size
            upload.created_by, upload.created_by_key = one.created_by, one.created_by_key
            storage.link(place, upload.place)
            storage.remember(upload.place, store(), upload.sha256)
            uploads.append(upload)
    except FileNotFoundError:  # room was made in the store, and they had come too long ago
        raise SourceProblem("taken_away", MISSING, passing=True) from None
    _list(one, uploads)


@transaction.atomic
def _list(one: VersionImport, uploads: list[Upload]) -> None:
    if not VersionImport.objects.select_for_update().running().filter(pk=one.pk, draft=one.draft).exists():
        raise Ended
    changed = ["size", "offset", "sha256"]
    Upload.objects.bulk_create(
        uploads, update_conflicts=True, unique_fields=["draft", "path"], update_fields=changed, batch_size=500
    )


def _publish(one: VersionImport, at: datetime) -> bool:
    if one.draft is None:
        raise Ended
    version = one.finish(inspecting.look(one.draft), at=at)
    if version is None:
        raise Ended
    log.info("Imported %s as %s", one, version)
    return True


def _failed(one: VersionImport, problem: SourceProblem, at: datetime) -> None:
    """Try again later what may pass, until it didn't for long; end it otherwise."""
    now = VersionImport.objects.filter(pk=one.pk).values_list("trouble_since", flat=True).first()
    since = now or at
    if problem.passing and at - since < GIVE_UP:
        one.change(
            ImportState.RUNNING,
            lease_until=None,
            wait_until=at + AGAIN,
            trouble_since=since,
            reason=problem.code,
            message=problem.message,
        )
        return
    one.fail(problem.code, problem.message, field=problem.field, at=at)
