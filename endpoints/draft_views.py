"""Making a version: its draft's page, and the ways in which its files come in."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from accounts import access
from accounts.models import Membership
from accounts.people import person
from accounts.refused import Refused
from accounts.rest import Problem
from accounts.roles import Right
from endpoints import inspecting, model_guide, receiving, tus
from endpoints.model_forms import DraftForm, FileForm
from endpoints.model_views import KINDS, model_of
from endpoints.models import Upload, VersionDraft


@require_POST
def begin(request: HttpRequest, project: str, name: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.OPERATE)
    model = model_of(here.project, name)
    form = DraftForm(request.POST, project=here.project, model=model)
    if not form.is_valid():
        said = "; ".join(str(text) for texts in form.errors.values() for text in texts)
        messages.error(request, f"No version was begun: {said}")
        return redirect("endpoints:model", project=project, name=name)
    given = form.cleaned_data
    try:
        draft = VersionDraft.begin(
            model, notes=given["notes"], origin=given["origin"], parent=form.made_from, by=person(request)
        )
    except Refused as refused:
        messages.error(request, str(refused))
        return redirect("endpoints:model", project=project, name=name)
    return redirect("endpoints:version_draft", project=project, name=name, pk=draft.pk)


def draft(request: HttpRequest, project: str, name: str, pk: uuid.UUID) -> HttpResponse:
    """GET shows it, POST takes one file with a form."""
    here, found = _draft(request, project, name, pk)
    if one := found.imports.running().first():
        return redirect("endpoints:import", project=project, name=name, pk=one.pk)
    try:
        form = FileForm(request.POST or None, request.FILES or None) if request.method == "POST" else FileForm()
    except RequestDataTooBig:
        form = FileForm({})
    if form.is_valid():
        file = form.cleaned_data["file"]
        path = form.cleaned_data["path"] or file.name
        try:
            receiving.place_whole(found, path, file, file.size, by=person(request), at=timezone.now())
        except Refused as refused:
            form.add_error(refused.field or None, str(refused))
        except Problem as problem:
            form.add_error("file", str(problem))
        else:
            messages.success(request, f"{path} is here.")
            return redirect("endpoints:version_draft", project=project, name=name, pk=pk)
    return _page(request, here, found, form)


def _page(request: HttpRequest, here: Membership, found: VersionDraft, form: FileForm) -> HttpResponse:
    layout = inspecting.preview(found)
    context = {
        "here": here,
        "model": found.model,
        "draft": found,
        "uploads": [(upload, receiving.offset_of(upload)) for upload in found.uploads.all()],
        "layout": layout,
        "kind": KINDS[layout.kind] if layout else "",
        "form": form,
        "largest_piece": receiving.LARGEST_PIECE,
        "commands": model_guide.commands(found.model),
        "upload_url": reverse(
            "endpoints:uploads", kwargs={"project": here.project.slug, "name": found.model.name, "pk": found.pk}
        ),
    }
    return render(request, "endpoints/version_draft.html", context, status=422 if form.errors else 200)


@require_POST
def publish(request: HttpRequest, project: str, name: str, pk: uuid.UUID) -> HttpResponse:
    _, found = _draft(request, project, name, pk)
    try:
        version = found.publish(inspecting.look(found), by=person(request))
    except Refused as refused:
        messages.error(request, str(refused))
        return redirect("endpoints:version_draft", project=project, name=name, pk=pk)
    messages.success(request, f"{version} is published. Nothing of it changes any more.")
    return redirect("endpoints:version", project=project, name=name, number=version.number)


@require_POST
def discard(request: HttpRequest, project: str, name: str, pk: uuid.UUID) -> HttpResponse:
    _, found = _draft(request, project, name, pk)
    found.discard(by=person(request))
    messages.success(request, "The draft is thrown away, with its files.")
    return redirect("endpoints:model", project=project, name=name)


@require_POST
def remove_file(request: HttpRequest, project: str, name: str, pk: uuid.UUID, upload: uuid.UUID) -> HttpResponse:
    _, found = _draft(request, project, name, pk)
    one = _upload(found, upload)
    try:
        receiving.remove(one)
        messages.success(request, f"{one.path} is removed.")
    except Problem as problem:
        messages.error(request, str(problem))
    return redirect("endpoints:version_draft", project=project, name=name, pk=pk)


# ── tus, for the page's own script ───────────────────────────────────────────────────────────────
def uploads(request: HttpRequest, project: str, name: str, pk: uuid.UUID) -> HttpResponse:
    _, found = _draft(request, project, name, pk)
    by = person(request)

    def address(made: Upload) -> str:
        return f"{request.path}{made.pk}/"

    return tus.respond(request, lambda method: tus.collection(request, method, found, by=by, address=address))


def upload(request: HttpRequest, project: str, name: str, pk: uuid.UUID, upload: uuid.UUID) -> HttpResponse:
    _, found = _draft(request, project, name, pk)
    return tus.respond(request, lambda method: tus.one(request, method, _upload(found, upload)))


def _draft(request: HttpRequest, project: str, name: str, pk: uuid.UUID) -> tuple[Membership, VersionDraft]:
    here = access.membership(request.user, project, Right.OPERATE)
    drafts: Any = VersionDraft.objects.select_related("model", "parent__model")
    found = drafts.filter(pk=pk, model__name=name, model__project=here.project).first()
    if found is None:
        raise Http404("There is no such draft; it was published, thrown away, or left for two weeks.")
    return here, found


def _upload(found: VersionDraft, pk: uuid.UUID) -> Upload:
    one = found.uploads.select_related("draft").filter(pk=pk).first()
    if one is None:
        raise Http404("There is no such upload.")
    return one
