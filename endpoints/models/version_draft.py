"""A version that is being made: it collects files until it is published in one step, or thrown away."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.db import IntegrityError, models, transaction
from django.utils import timezone

from accounts.models import ApiKey, User
from accounts.refused import Refused
from endpoints.models.endpoint import By
from endpoints.models.event import actor_fields
from endpoints.models.registry import ModelVersion, RegisteredModel, store, tidy_soon
from endpoints.sources.paths import inside

DRAFT_LASTS = timedelta(days=14)  # since something was last done to it
UPLOAD_LASTS = timedelta(days=2)  # since a piece last came
LONGEST_PATH, LONGEST_NAME = 400, 200
MOST_FILES = 10_000


class VersionDraft(models.Model):
    """Its id names its folder in the store, which becomes the version's."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    model = models.ForeignKey(RegisteredModel, models.CASCADE, related_name="drafts")
    notes = models.TextField(blank=True)
    parent = models.ForeignKey(ModelVersion, models.SET_NULL, null=True, blank=True, related_name="+")
    origin = models.CharField(max_length=500, blank=True)
    source = models.JSONField(default=dict, blank=True)  # where it is imported from, as a version tells it
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"draft of {self.model.name}"

    @classmethod
    @transaction.atomic
    def begin(
        cls,
        model: RegisteredModel,
        *,
        notes: str = "",
        origin: str = "",
        parent: ModelVersion | None = None,
        source: Mapping[str, Any] | None = None,
        by: By,
    ) -> VersionDraft:
        """Raises Refused for a shared model."""
        model.refuse_if_shared()
        made = cls.objects.create(
            model=model,
            notes=notes,
            origin=origin,
            parent=parent,
            source=dict(source or {}),
            created_by=actor_fields(by)["actor"],
            expires_at=timezone.now() + DRAFT_LASTS,
        )
        said = f"Began a version of the model “{model.name}”{f', imported from {origin}' if source else ''}."
        model.record("model.draft_begun", said, by=by)
        return made

    @property
    def folder(self) -> Path:
        return store() / "registry" / str(self.pk)

    @property
    def files(self) -> list[Upload]:
        """Those that are whole."""
        return [upload for upload in self.uploads.all() if upload.sha256]

    @property
    def unfinished(self) -> list[Upload]:
        return [upload for upload in self.uploads.all() if not upload.sha256]

    @property
    def size_bytes(self) -> int:
        return sum(upload.size for upload in self.files)

    def expect(self, path: str, size: int, *, sha256: str = "", by: By) -> Upload:
        """A file that is to come. Raises Refused for a path that can't be, or that is there already."""
        path = clean_path(path)
        self._refuse_while_importing()
        if self.uploads.count() >= MOST_FILES:
            raise Refused(f"A version holds {MOST_FILES:,} files at most.", field="path", code="too_many")
        self._refuse_shadow(path)
        now, maker = timezone.now(), actor_fields(by)
        try:
            with transaction.atomic():
                made = self.uploads.create(
                    path=path,
                    size=size,
                    declared=sha256,
                    created_by=maker["actor"],
                    created_by_key=maker["actor_key"],
                    expires_at=now + UPLOAD_LASTS,
                )
        except IntegrityError:
            raise Refused(
                f"“{path}” is in this draft already. Remove it first, or go on with its upload.",
                field="path",
                code="name_taken",
            ) from None
        self.touch(now)
        return made

    def _refuse_shadow(self, path: str) -> None:
        """A path can't be a file and a folder at once."""
        above = [str(parent) for parent in Path(path).parents if str(parent) != "."]
        if clash := self.uploads.filter(models.Q(path__in=above) | models.Q(path__startswith=f"{path}/")).first():
            raise Refused(f"“{path}” can't be beside “{clash.path}”.", field="path", code="invalid")

    @property
    def importing(self) -> bool:
        """Whether files are on their way into it from elsewhere."""
        return bool(self.imports.filter(state="running").exists())

    def _refuse_while_importing(self) -> None:
        if self.importing:
            raise Refused("Files are being imported into this draft. Wait until they are here.", code="importing")

    def touch(self, at: datetime) -> None:
        """It is being worked on, so it lives on."""
        VersionDraft.objects.filter(pk=self.pk).update(expires_at=at + DRAFT_LASTS)

    @transaction.atomic
    def publish(self, looked: Mapping[str, Any], *, by: By) -> ModelVersion:
        """Make it the model's next version. `looked`: path, kind, facts and report, as `inspecting` saw them.

        Raises Refused while a file is on its way, without files, and when the files changed since they were seen.
        """
        model = RegisteredModel.objects.select_for_update().get(pk=self.model_id)
        if not VersionDraft.objects.select_for_update(of=("self",)).filter(pk=self.pk).exists():
            raise Refused("This draft was published or thrown away already.", code="gone")
        self._refuse_while_importing()
        files = self.ready_files()
        if files != looked["files"]:
            raise Refused("The files changed meanwhile. Look at them and publish again.", code="changed")
        last = model.versions.order_by("-number").values_list("number", flat=True).first() or 0
        number = max(last, model.last_number) + 1
        version = ModelVersion.objects.create(
            model=model,
            number=number,
            size_bytes=sum(file["size"] for file in files),
            notes=self.notes,
            parent=self.parent,
            parent_name=str(self.parent or ""),
            origin=self.origin,
            source=self.source,
            created_by=actor_fields(by)["actor"],
            **looked,
        )
        self.imports.update(version=version)
        model.last_number = number
        model.save(update_fields=["last_number"])
        model.record("model.version_published", f"Published {version}, {len(files)} files.", by=by)
        self.delete()
        return version

    def ready_files(self) -> list[dict[str, Any]]:
        """The files as a version keeps them, by path. Raises Refused while it can't become one."""
        uploads = list(self.uploads.order_by("path"))
        waiting = [upload.path for upload in uploads if not upload.sha256]
        if waiting:
            more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
            raise Refused(f"“{waiting[0]}”{more} is not here whole. Finish or remove it first.", code="unfinished")
        if not uploads:
            raise Refused("There is no file yet. Upload the model's files first.", code="empty")
        return [{"path": upload.path, "size": upload.size, "sha256": upload.sha256} for upload in uploads]

    @transaction.atomic
    def discard(self, *, by: By) -> None:
        """Throw it away with all that was uploaded into it."""
        self.model.record("model.draft_discarded", f"Threw away a draft of “{self.model.name}”.", by=by)
        ended = {"state": "cancelled", "ended_at": timezone.now(), "lease_until": None}
        self.imports.filter(state__in=("running", "failed")).update(**ended)
        self.delete()
        tidy_soon()


class Upload(models.Model):
    """A file of a draft: on its way up to `offset`, whole once `sha256` is known."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    draft = models.ForeignKey(VersionDraft, models.CASCADE, related_name="uploads")
    path = models.CharField(max_length=LONGEST_PATH)
    size = models.BigIntegerField()
    offset = models.BigIntegerField(default=0)  # bytes that came and were found right
    declared = models.CharField(max_length=64, blank=True)  # the sha256 its sender expects
    sha256 = models.CharField(max_length=64, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_by_key = models.ForeignKey(ApiKey, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ["path"]
        constraints = [
            models.UniqueConstraint(fields=["draft", "path"], name="upload_path_once"),
            models.CheckConstraint(condition=models.Q(offset__lte=models.F("size")), name="upload_offset_in_size"),
        ]

    def __str__(self) -> str:
        return self.path

    @property
    def key(self) -> str:
        """Its name among the store's partial files and locks."""
        return f"upload-{self.pk}"

    @property
    def place(self) -> Path:
        """Where it lies in the draft's folder once it is whole."""
        return self.draft.folder / self.path


def clean_path(path: str) -> str:
    """A path that stays within the version's folder, on any disk. Raises Refused."""
    path = path.strip()
    if not path:
        raise Refused("Say where in the version the file goes.", field="path", code="invalid")
    if inside("", path) != path or any(ord(letter) < 32 or "\ud800" <= letter <= "\udfff" for letter in path):
        raise Refused("Write the path with slashes, relative, and without “..”.", field="path", code="invalid")
    if len(path) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in path.split("/")):
        raise Refused(
            f"The path may have {LONGEST_PATH} characters, each name {LONGEST_NAME} bytes.",
            field="path",
            code="invalid",
        )
    return path
