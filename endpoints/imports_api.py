"""The REST API of imports: a version brought from Hugging Face, Git, S3 or Google Cloud Storage by a worker."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Router, Schema
from ninja.responses import Status as Answer
from pydantic import Field

from accounts.models import Project
from accounts.rest import ManageKey, Problem, key_of
from endpoints.idempotency import once
from endpoints.import_form import ImportForm
from endpoints.models import VersionImport
from endpoints.models_api import PROBLEMS, model_of, parent_of
from endpoints.models_shapes import Closed, MadeFrom
from endpoints.sources import SourceFile
from endpoints.spec import SourceSpec

router = Router(auth=ManageKey(), tags=["Models"])
MOST = 200  # imports that a list holds
Pinned = tuple[SourceSpec, Sequence[SourceFile], str]  # with its licence


class SourceIn(Closed):
    """huggingface takes model_id, revision and path; git url, revision, path, username and host_key;
    s3 bucket, path, url, region and access_key; gcs bucket, path and url.

    `token_secret` names the stored secret with the credential.
    """

    kind: Literal["huggingface", "git", "s3", "gcs"]
    model_id: str = Field("", max_length=400)
    url: str = Field("", max_length=1000)
    bucket: str = Field("", max_length=222)
    revision: str = Field("main", max_length=200)
    path: str = Field("", max_length=400)
    region: str = Field("", max_length=60)
    access_key: str = Field("", max_length=200)
    username: str = Field("", max_length=200)
    token_secret: str = Field("", max_length=80)
    host_key: str = Field("", max_length=4000)


class ImportIn(MadeFrom):
    """`only`: names or patterns of files with spaces between, such as "*.safetensors *.json"; "" for all."""

    source: SourceIn
    only: str = Field("", max_length=400)


class ImportOut(Schema):
    """`state`: running, done, failed or cancelled. `field` is the source's setting that a failure asks to mend."""

    id: uuid.UUID
    model: str
    state: str
    waits: bool
    kind: str
    where: str
    revision: str
    only: str
    files: int
    bytes_done: int
    bytes_total: int
    reason: str
    message: str
    field: str
    draft: uuid.UUID | None
    version: int | None
    created_at: datetime
    ended_at: datetime | None


@router.post("/models/{name}/imports", response={202: ImportOut, 200: ImportOut} | PROBLEMS)
def create_import(request: HttpRequest, response: HttpResponse, name: str, body: ImportIn) -> Answer[Any]:
    """Bring a version from elsewhere: the source is reached and pinned now, its files come in the background.

    Follow it at `Location`; once `state` is “done”, `version` is its number.
    With an `Idempotency-Key` header, the same call sent again answers 200 with the import that the first began.
    """
    key, model = key_of(request), model_of(request, name)
    model.refuse_if_shared()
    parent = parent_of(request, name, body)

    def launch(found: Pinned) -> VersionImport:
        spec, files, terms = found
        more: dict[str, Any] = {"only": body.only, "notes": body.notes, "parent": parent, "by": key}
        return VersionImport.begin(model, spec, files, terms=terms, **more)

    repeatable = request.headers.get("Idempotency-Key", "")
    if repeatable:
        asked = {"import_into": str(model.pk)} | body.dict()
        one, made = once(key.project, repeatable, asked, check=lambda: _pinned(key.project, body), launch=launch)
    else:
        one, made = launch(_pinned(key.project, body)), True
    response["Location"] = f"{request.path}/{one.pk}"
    return Answer(202 if made else 200, _shown(one))


def _pinned(project: Project, body: ImportIn) -> Pinned:
    form = ImportForm.of(project, body.source.dict() | {"only": body.only})
    look = form.test() if form.is_valid() and not _idle(form, body.source) else None
    if look is None or form.pinned is None or not form.is_valid():
        raise Problem(422, "invalid", "This source can't be imported.", _errors(form) | _idle(form, body.source))
    return form.pinned, form.chosen, look.found.license


@router.get("/models/{name}/imports", response={200: list[ImportOut]} | PROBLEMS)
def list_imports(request: HttpRequest, name: str) -> list[ImportOut]:
    """The model's imports, the newest first, 200 at most."""
    return [_shown(one) for one in model_of(request, name).imports.select_related("model", "version")[:MOST]]


@router.get("/models/{name}/imports/{import_id}", response={200: ImportOut} | PROBLEMS)
def get_import(request: HttpRequest, name: str, import_id: uuid.UUID) -> ImportOut:
    return _shown(_import(request, name, import_id))


@router.post("/models/{name}/imports/{import_id}/retry", response={202: ImportOut} | PROBLEMS)
def retry_import(request: HttpRequest, name: str, import_id: uuid.UUID) -> Answer[Any]:
    """Go on with one that failed; what came already isn't asked for again."""
    one = _import(request, name, import_id)
    one.retry(by=key_of(request), at=timezone.now())
    return Answer(202, _shown(one))


@router.post("/models/{name}/imports/{import_id}/cancel", response={200: ImportOut} | PROBLEMS)
def cancel_import(request: HttpRequest, name: str, import_id: uuid.UUID) -> ImportOut:
    """End it, running or failed; no version is made."""
    _import(request, name, import_id).cancel(by=key_of(request))
    return _shown(_import(request, name, import_id))


def _import(request: HttpRequest, name: str, import_id: uuid.UUID) -> VersionImport:
    found = (
        model_of(request, name).imports.select_related("model", "draft", "version").filter(pk=import_id).first()
    )
    if found is None:
        raise Http404(f"The model “{name}” has no such import.")
    return found


def _errors(form: ImportForm) -> dict[str, list[str]]:
    """By the fields' names in JSON; “source” for what is no field's."""
    return {
        form.dotted(name) if name in form.fields else form.section: [str(text) for text in texts]
        for name, texts in form.errors.items()
    }


def _idle(form: ImportForm, given: SourceIn) -> dict[str, list[str]]:
    """Fields that were given a value and mean nothing with this kind."""
    return {
        form.dotted(name): [f"This has no effect here. {why}"]
        for name, why in form.unused().items()
        if name in SourceIn.model_fields and getattr(given, name) != SourceIn.model_fields[name].default
    }


def _shown(one: VersionImport) -> ImportOut:
    spec = one.spec
    return ImportOut(
        id=one.pk,
        model=one.model.name,
        state=one.state,
        waits=one.waits,
        kind=str(spec.kind),
        where=spec.named,
        revision=spec.revision,
        only=one.only,
        files=len(one.files),
        bytes_done=one.bytes_done,
        bytes_total=one.bytes_total,
        reason=one.reason,
        message=one.message,
        field=one.field,
        draft=one.draft_id,
        version=one.version.number if one.version else None,
        created_at=one.created_at,
        ended_at=one.ended_at,
    )
