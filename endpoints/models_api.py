"""The REST API of the registry: models, versions, drafts, and the tus door that files come in by."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from ninja import Router
from ninja.params.functions import Query
from ninja.responses import Status as Answer

from accounts.refused import Refused
from accounts.rest import Error, ManageKey, key_of, only
from endpoints import inspecting, tus
from endpoints.models import ModelVersion, RegisteredModel, VersionDraft
from endpoints.models.registry import visible_version
from endpoints.models_shapes import (
    DraftIn,
    DraftOut,
    MadeFrom,
    ModelChange,
    ModelIn,
    ModelOut,
    ModelsOut,
    VersionOut,
    draft_shown,
    model_shown,
    version_shown,
)

router = Router(auth=ManageKey(), tags=["Models"])
PROBLEMS: dict[Any, Any] = {frozenset({400, 401, 403, 404, 409, 413, 422}): Error}
TUS_PROBLEMS: dict[Any, Any] = {
    frozenset({400, 401, 403, 404, 409, 410, 412, 413, 415, 422, 423, 460, 507}): Error
}
TUS_HEADERS = {
    "create_upload": ["Tus-Resumable", "Upload-Length", "Upload-Metadata"],
    "upload_offset": ["Tus-Resumable"],
    "upload_piece": ["Tus-Resumable", "Upload-Offset", "Upload-Checksum"],
    "remove_upload": ["Tus-Resumable"],
}
LARGEST_PAGE = 200


@router.get("/models", response={200: ModelsOut} | PROBLEMS)
def list_models(
    request: HttpRequest,
    q: str = "",
    page: int = Query(1, ge=1, le=100_000),
    limit: int = Query(50, ge=1, le=LARGEST_PAGE),
) -> ModelsOut:
    """The project's models and those that every project shares, by name."""
    only(request.GET, ("q", "page", "limit"))
    rows = RegisteredModel.objects.usable_in(key_of(request).project).matching(q.replace("\0", ""))
    found = Paginator(rows.prefetch_related("versions").order_by("name", "pk"), limit)
    items = [model_shown(model) for model in found.page(page)] if page <= found.num_pages else []
    return ModelsOut(items=items, total=found.count, page=page, pages=found.num_pages)


@router.post("/models", response={201: ModelOut} | PROBLEMS)
def create_model(request: HttpRequest, response: HttpResponse, body: ModelIn) -> Answer[Any]:
    """A model without a version yet: begin a draft next."""
    key = key_of(request)
    made = RegisteredModel.open(key.project, by=key, **body.dict())
    response["Location"] = f"{request.path}/{made.name}"
    return Answer(201, model_shown(made))


@router.get("/models/{name}", response={200: ModelOut} | PROBLEMS)
def get_model(request: HttpRequest, name: str) -> ModelOut:
    return model_shown(model_of(request, name))


@router.patch("/models/{name}", response={200: ModelOut} | PROBLEMS)
def update_model(request: HttpRequest, name: str, body: ModelChange) -> ModelOut:
    """Change what is said of it; what is left out stays. Versions never change."""
    model = model_of(request, name)
    model.describe(by=key_of(request), **body.dict(exclude_none=True))
    return model_shown(model)


@router.delete("/models/{name}", response={204: None} | PROBLEMS)
def delete_model(request: HttpRequest, name: str) -> Answer[Any]:
    """Delete it with all its versions and drafts; refused while an endpoint uses one."""
    model_of(request, name).discard(by=key_of(request))
    return Answer(204, None)


@router.get("/models/{name}/versions/{number}", response={200: VersionOut} | PROBLEMS)
def get_version(request: HttpRequest, name: str, number: int) -> VersionOut:
    return version_shown(key_of(request).project, _version(request, name, number))


@router.delete("/models/{name}/versions/{number}", response={204: None} | PROBLEMS)
def delete_version(request: HttpRequest, name: str, number: int) -> Answer[Any]:
    """Delete it for good; refused while an endpoint uses it. Its number is never used again."""
    _version(request, name, number).discard(by=key_of(request))
    return Answer(204, None)


@router.post("/models/{name}/drafts", response={201: DraftOut} | PROBLEMS)
def create_draft(request: HttpRequest, response: HttpResponse, name: str, body: DraftIn) -> Answer[Any]:
    """Begin a version: upload its files by tus at `…/drafts/{id}/uploads`, then publish it."""
    parent = parent_of(request, name, body)
    draft = VersionDraft.begin(
        model_of(request, name), notes=body.notes, origin=body.origin, parent=parent, by=key_of(request)
    )
    response["Location"] = f"{request.path}/{draft.pk}"
    return Answer(201, draft_shown(draft))


@router.get("/models/{name}/drafts/{draft}", response={200: DraftOut} | PROBLEMS)
def get_draft(request: HttpRequest, name: str, draft: uuid.UUID) -> DraftOut:
    return draft_shown(_draft(request, name, draft))


@router.delete("/models/{name}/drafts/{draft}", response={204: None} | PROBLEMS)
def discard_draft(request: HttpRequest, name: str, draft: uuid.UUID) -> Answer[Any]:
    """Throw it away with all that was uploaded into it."""
    _draft(request, name, draft).discard(by=key_of(request))
    return Answer(204, None)


@router.post("/models/{name}/drafts/{draft}/publish", response={201: VersionOut} | PROBLEMS)
def publish_draft(request: HttpRequest, name: str, draft: uuid.UUID) -> Answer[Any]:
    """Make it the model's next version. Its files are looked through first; from then on nothing of it changes."""
    found = _draft(request, name, draft)
    return Answer(
        201, version_shown(key_of(request).project, found.publish(inspecting.look(found), by=key_of(request)))
    )


def _tus(operation: str) -> dict[str, Any]:
    headers = [{"in": "header", "name": name, "schema": {"type": "string"}} for name in TUS_HEADERS[operation]]
    return {"parameters": headers}


@router.post(
    "/models/{name}/drafts/{draft}/uploads",
    response={201: None} | TUS_PROBLEMS,
    openapi_extra=_tus("create_upload"),
)
def create_upload(request: HttpRequest, name: str, draft: uuid.UUID) -> HttpResponse:
    """tus: open an upload. Upload-Metadata takes `path` (within the version), and may `sha256` (hexadecimal)."""

    def answer(method: str) -> HttpResponse:
        found = _draft(request, name, draft)
        by = key_of(request)
        return tus.collection(request, method, found, by=by, address=lambda made: f"{request.path}/{made.pk}")

    return tus.respond(request, answer)


@router.api_operation(
    ["HEAD"],
    "/models/{name}/drafts/{draft}/uploads/{upload}",
    response={200: None} | TUS_PROBLEMS,
    openapi_extra=_tus("upload_offset"),
)
def upload_offset(request: HttpRequest, name: str, draft: uuid.UUID, upload: uuid.UUID) -> HttpResponse:
    """tus: from which byte on to go on, as Upload-Offset."""
    return _act(request, name, draft, upload)


@router.patch(
    "/models/{name}/drafts/{draft}/uploads/{upload}",
    response={204: None} | TUS_PROBLEMS,
    openapi_extra=_tus("upload_piece"),
)
def upload_piece(request: HttpRequest, name: str, draft: uuid.UUID, upload: uuid.UUID) -> HttpResponse:
    """tus: the next piece, 64 MiB at most, as application/offset+octet-stream; Upload-Checksum takes sha256."""
    return _act(request, name, draft, upload)


@router.delete(
    "/models/{name}/drafts/{draft}/uploads/{upload}",
    response={204: None} | TUS_PROBLEMS,
    openapi_extra=_tus("remove_upload"),
)
def remove_upload(request: HttpRequest, name: str, draft: uuid.UUID, upload: uuid.UUID) -> HttpResponse:
    """tus: take a file out of the draft, on its way or whole."""
    return _act(request, name, draft, upload)


@router.api_operation(
    ["OPTIONS", "POST"],
    "/models/{name}/drafts/{draft}/uploads/{upload}",
    include_in_schema=False,
)
def tus_otherwise(request: HttpRequest, name: str, draft: uuid.UUID, upload: uuid.UUID) -> HttpResponse:
    """What the server can do, and methods that a proxy doesn't let through, as X-HTTP-Method-Override."""
    return _act(request, name, draft, upload)


@router.api_operation(["OPTIONS"], "/models/{name}/drafts/{draft}/uploads", include_in_schema=False)
def tus_abilities(request: HttpRequest, name: str, draft: uuid.UUID) -> HttpResponse:
    return create_upload(request, name, draft)


def _act(request: HttpRequest, name: str, draft: uuid.UUID, upload: uuid.UUID) -> HttpResponse:
    def answer(method: str) -> HttpResponse:
        found = _draft(request, name, draft).uploads.select_related("draft").filter(pk=upload).first()
        if found is None:
            raise Http404("There is no such upload.")
        return tus.one(request, method, found)

    return tus.respond(request, answer)


def parent_of(request: HttpRequest, name: str, body: MadeFrom) -> ModelVersion | None:
    """The version that a body says another was made from."""
    if not body.made_from_model and not body.made_from_version:
        return None
    parent = visible_version(key_of(request).project, body.made_from_model or name, body.made_from_version)
    if parent is None:
        raise Refused(
            "There is no such version to have been made from.", field="made_from_version", code="invalid"
        )
    return parent


def model_of(request: HttpRequest, name: str) -> RegisteredModel:
    """Of the key's project, or shared; another project's is as good as not there."""
    found = RegisteredModel.objects.named(name, key_of(request).project)
    if found is None:
        raise Http404(f"There is no model “{name}” in this project.")
    return found


def _version(request: HttpRequest, name: str, number: int) -> ModelVersion:
    found = visible_version(key_of(request).project, name, number)
    if found is None:
        raise Http404(f"The model “{name}” has no version {number}.")
    return found


def _draft(request: HttpRequest, name: str, draft: uuid.UUID) -> VersionDraft:
    found = model_of(request, name).drafts.select_related("model", "parent__model").filter(pk=draft).first()
    if found is None:
        raise Http404(f"The model “{name}” has no such draft.")
    return found
