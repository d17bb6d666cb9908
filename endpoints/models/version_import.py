"""A version that a worker brings from elsewhere: pinned when it is begun, published once all of it is here."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.db import models, transaction
from django.utils import timezone

from accounts.models import ApiKey, User
from accounts.refused import Refused
from endpoints import bell
from endpoints.models.endpoint import By
from endpoints.models.event import Severity, actor_fields
from endpoints.models.registry import ModelVersion, RegisteredModel
from endpoints.models.version_draft import MOST_FILES, VersionDraft, clean_path
from endpoints.sources import SourceFile
from endpoints.spec import SourceKind, SourceSpec

LONGEST_ORIGIN = 500
EXPIRES = 10.0  # seconds after which the timer has rung anew


class ImportState(models.TextChoices):
    """RUNNING ─► DONE, FAILED or CANCELLED; FAILED ─► RUNNING when it is tried again, or CANCELLED."""

    RUNNING = "running", "Importing"
    DONE = "done", "Imported"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"

    @property
    def tone(self) -> str:
        return {"running": "idle", "done": "ok", "failed": "bad", "cancelled": "idle"}[self.value]


class VersionImportQuerySet(models.QuerySet["VersionImport"]):
    def running(self) -> VersionImportQuerySet:
        return self.filter(state=ImportState.RUNNING)

    def unfinished(self) -> VersionImportQuerySet:
        """Those that somebody still waits for, or has to look at."""
        return self.filter(state__in=(ImportState.RUNNING, ImportState.FAILED), draft__isnull=False)

    def due(self, at: datetime) -> VersionImportQuerySet:
        """Those that no worker has, and that needn't wait before the next try."""
        free = models.Q(lease_until=None) | models.Q(lease_until__lt=at)
        return self.running().filter(free).exclude(wait_until__gt=at)


class VersionImport(models.Model):
    """`source` is a SourceSpec, its revision pinned and its credential by name only. The worker that has it renews
    `lease_until`; `bytes_before` and `taken_at` say from where and since when it goes on, for the rate."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    model = models.ForeignKey(RegisteredModel, models.CASCADE, related_name="imports")
    draft = models.ForeignKey(VersionDraft, models.SET_NULL, null=True, blank=True, related_name="imports")
    version = models.ForeignKey(ModelVersion, models.SET_NULL, null=True, blank=True, related_name="imports")
    source = models.JSONField()
    files = models.JSONField()  # [SourceFile as a dict]
    only = models.CharField(max_length=400, blank=True)  # patterns, as typed
    state = models.CharField(max_length=10, choices=ImportState.choices, default=ImportState.RUNNING)
    bytes_done = models.BigIntegerField(default=0)
    bytes_total = models.BigIntegerField()
    bytes_before = models.BigIntegerField(default=0)
    taken_at = models.DateTimeField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    wait_until = models.DateTimeField(null=True, blank=True)
    trouble_since = models.DateTimeField(null=True, blank=True)  # when it last stopped getting further
    reason = models.CharField(max_length=60, blank=True)
    message = models.TextField(blank=True)
    field = models.CharField(max_length=40, blank=True)  # of the source's settings, which is to be mended
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_by_key = models.ForeignKey(ApiKey, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = VersionImportQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["state", "created_at"])]

    def __str__(self) -> str:
        return origin_of(self.spec)

    @classmethod
    @transaction.atomic
    def begin(
        cls,
        model: RegisteredModel,
        spec: SourceSpec,
        files: Sequence[SourceFile],
        *,
        by: By,
        terms: str = "",
        only: str = "",
        notes: str = "",
        parent: ModelVersion | None = None,
    ) -> VersionImport:
        """`spec` is pinned, `terms` its licence.

        Raises Refused for a shared model, and for files that no version can hold.
        """
        _require_storable(files)
        source = lineage_of(spec, files, terms)
        draft = VersionDraft.begin(model, notes=notes, origin=origin_of(spec), parent=parent, source=source, by=by)
        maker = actor_fields(by)
        made = cls.objects.create(
            model=model,
            draft=draft,
            source=asdict(spec) | {"kind": str(spec.kind)},
            files=[asdict(file) for file in files],
            only=only,
            bytes_total=sum(file.size for file in files),
            created_by=maker["actor"],
            created_by_key=maker["actor_key"],
        )
        made.ring()
        return made

    @property
    def spec(self) -> SourceSpec:
        return SourceSpec(**self.source)

    @property
    def by(self) -> By:
        return self.created_by_key or self.created_by

    @property
    def status(self) -> ImportState:
        return ImportState(self.state)

    @property
    def waits(self) -> bool:
        """Whether no worker has taken it up yet."""
        return self.state == ImportState.RUNNING and self.taken_at is None

    def ring(self) -> None:
        """Have a worker take it up; a timer gets there too."""
        pk = str(self.pk)
        transaction.on_commit(lambda: bell.send("endpoints.import_version", pk, queue="slow", expires=EXPIRES))

    def change(self, *states: str, **columns: Any) -> bool:
        """Write columns if it is in one of these states; says whether it was."""
        if not VersionImport.objects.filter(pk=self.pk, state__in=states).update(**columns):
            return False
        for name, value in columns.items():
            setattr(self, name, value)
        return True

    @transaction.atomic
    def finish(self, looked: dict[str, Any], *, at: datetime) -> ModelVersion | None:
        """Publish what came as the model's next version; None if it was ended meanwhile. Raises Refused."""
        ended = {"state": ImportState.DONE, "ended_at": at, "lease_until": None, "message": "", "reason": ""}
        if not self.change(ImportState.RUNNING, **ended) or self.draft is None:
            return None
        return self.draft.publish(looked, by=self.by)

    @transaction.atomic
    def fail(self, reason: str, message: str, *, field: str = "", at: datetime) -> bool:
        """End it with what is wrong; what came stays, and it may be tried again."""
        ended = {"state": ImportState.FAILED, "ended_at": at, "lease_until": None, "wait_until": None}
        told = {"reason": reason[:60], "message": message, "field": field}
        if not self.change(ImportState.RUNNING, **ended, **told):
            return False
        said = f"The import of {self} failed: {message}"
        self.model.record("model.import_failed", said, by=None, severity=Severity.BAD)
        return True

    @transaction.atomic
    def retry(self, *, by: By, at: datetime) -> None:
        """Go on where it ended. Raises Refused unless it failed."""
        fresh: dict[str, Any] = {"reason": "", "message": "", "field": "", "ended_at": None, "trouble_since": None}
        if self.draft is None or not self.change(ImportState.FAILED, state=ImportState.RUNNING, **fresh):
            raise Refused("Only an import that failed can be tried again.", code="not_failed")
        self.draft.touch(at)
        self.model.record("model.import_retried", f"Tried again to import {self}.", by=by)
        self.ring()

    @transaction.atomic
    def cancel(self, *, by: By) -> None:
        """End it, with all that came of it. Raises Refused if it is over."""
        if self.draft is None or self.state not in (ImportState.RUNNING, ImportState.FAILED):
            raise Refused("This import is over already.", code="over")
        self.draft.discard(by=by)


def origin_of(spec: SourceSpec) -> str:
    """A pinned source as a line of a lineage."""
    place = f"{spec.named} on Hugging Face" if spec.kind == SourceKind.HUGGING_FACE else spec.named
    room = LONGEST_ORIGIN - len(spec.revision) - len(" at ")
    return f"{place[:room]} at {spec.revision}"


def lineage_of(spec: SourceSpec, files: Sequence[SourceFile], terms: str) -> dict[str, Any]:
    """What a version says of where it was imported from: no credential, not even by its name."""
    return {
        "kind": str(spec.kind),
        "where": spec.named,
        "service": spec.url if spec.kind in (SourceKind.S3, SourceKind.GCS) else "",
        "revision": spec.revision,
        "license": terms,
        "objects": {file.path: file.tag for file in files if file.tag},
    }


def _require_storable(files: Sequence[SourceFile]) -> None:
    if len(files) > MOST_FILES:
        raise Refused(
            f"There are {len(files):,} files; a version holds {MOST_FILES:,}. Name fewer.",
            field="only",
            code="too_many",
        )
    for file in files:
        try:
            clean_path(file.path)
        except Refused as refused:
            raise Refused(f"“{file.path[:80]}”: {refused}", field="only", code="invalid") from None
