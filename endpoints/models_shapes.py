"""The registry as the REST API takes and shows it."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from ninja import Schema
from pydantic import ConfigDict, Field, field_validator

from accounts.models import Project
from endpoints import receiving
from endpoints.models import ModelVersion, RegisteredModel, Upload, VersionDraft


class Closed(Schema):
    """Unknown fields are refused, and texts that the database can't hold."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    @field_validator("*", mode="after")
    @classmethod
    def storable(cls, value: Any) -> Any:
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
            raise ValueError("The text holds a character that can't be stored.")
        return value


class ModelIn(Closed):
    name: str = Field(max_length=80, pattern=r"^[a-zA-Z0-9_-]+$")
    title: str = Field("", max_length=120)
    description: str = Field("", max_length=20_000)
    license: str = Field("", max_length=80)


class ModelChange(Closed):
    title: str | None = Field(None, max_length=120)
    description: str | None = Field(None, max_length=20_000)
    license: str | None = Field(None, max_length=80)


class MadeFrom(Closed):
    notes: str = Field("", max_length=20_000)
    made_from_model: str = Field("", max_length=80)
    made_from_version: int | None = Field(None, ge=1, le=2**31 - 1)


class DraftIn(MadeFrom):
    """`made_from_model` and `made_from_version` name the version it was made from, `origin` anything else."""

    origin: str = Field("", max_length=500)


class FileOut(Schema):
    path: str
    size: int
    sha256: str | None


class ImportedFrom(Schema):
    """Where a version was imported from, pinned. `objects`: path → the source's own name for just that content."""

    kind: str
    where: str
    service: str
    revision: str
    license: str
    objects: dict[str, str]


class NoteOut(Schema):
    path: str
    level: str
    text: str
    todo: str


class VersionOut(Schema):
    model: str
    number: int
    kind: str
    size_bytes: int
    files: list[FileOut]
    report: list[NoteOut]
    notes: str
    lineage: list[str]
    imported_from: ImportedFrom | None
    used_by: list[str]
    created_at: datetime


class ModelOut(Schema):
    name: str
    title: str
    description: str
    license: str
    shared: bool
    versions: list[int]
    created_at: datetime


class ModelsOut(Schema):
    items: list[ModelOut]
    total: int
    page: int
    pages: int


class UploadOut(Schema):
    id: uuid.UUID
    path: str
    size: int
    offset: int
    sha256: str
    expires_at: datetime


class DraftOut(Schema):
    id: uuid.UUID
    model: str
    notes: str
    origin: str
    made_from: str
    expires_at: datetime
    uploads: list[UploadOut]


def model_shown(model: RegisteredModel) -> ModelOut:
    numbers = sorted(version.number for version in model.versions.all())
    return ModelOut(
        name=model.name,
        title=model.title,
        description=model.description,
        license=model.license,
        shared=model.project_id is None,
        versions=numbers,
        created_at=model.created_at,
    )


def version_shown(project: Project, version: ModelVersion) -> VersionOut:
    return VersionOut(
        model=version.model.name,
        number=version.number,
        kind=version.kind,
        size_bytes=version.size_bytes,
        files=[FileOut(path=one["path"], size=one["size"], sha256=one.get("sha256")) for one in version.files],
        report=[
            NoteOut(path=note.path, level=note.level, text=note.text, todo=note.todo) for note in version.findings
        ],
        notes=version.notes,
        lineage=[ancestor.label for ancestor in version.lineage],
        imported_from=ImportedFrom(**version.source) if version.source else None,
        used_by=[str(revision) for revision in version.used_by(project)],
        created_at=version.created_at,
    )


def draft_shown(draft: VersionDraft) -> DraftOut:
    uploads = [_upload_out(upload) for upload in Upload.objects.filter(draft=draft).order_by("path")]
    return DraftOut(
        id=draft.pk,
        model=draft.model.name,
        notes=draft.notes,
        origin=draft.origin,
        made_from=str(draft.parent or ""),
        expires_at=draft.expires_at,
        uploads=uploads,
    )


def _upload_out(upload: Upload) -> UploadOut:
    return UploadOut(
        id=upload.pk,
        path=upload.path,
        size=upload.size,
        offset=receiving.offset_of(upload),
        sha256=upload.sha256,
        expires_at=upload.expires_at,
    )
