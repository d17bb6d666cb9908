"""Importing a version: the form that names its source, and the page that says how far it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST

from accounts import access
from accounts.models import Membership
from accounts.people import person
from accounts.refused import Refused
from accounts.roles import Right
from endpoints.idempotency import once
from endpoints.import_form import KINDS, ImportForm
from endpoints.model_forms import DraftForm
from endpoints.model_views import model_of
from endpoints.models import ImportState, RegisteredModel, VersionImport
from endpoints.models.version_import import lineage_of
from endpoints.spec import SourceSpec
from endpoints.wizard import guide, posts
from endpoints.wizard.report import report_of
from endpoints.wizard.secret_form import SecretForm
from endpoints.wizard.showing import other_kind


@sensitive_post_parameters("value")
@sensitive_variables("secret")
def new(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """GET shows the form, also for another try; POST tests the source, stores a secret for it, or begins."""
    here = access.membership(request.user, project, Right.OPERATE)
    model = model_of(here.project, name)
    failed = _failed(request, model)
    if request.method != "POST":
        form = ImportForm.again(failed, here.project) if failed else ImportForm.of(here.project)
        return _form_page(request, here, model, form, {})
    values = posts.answers("source", {}, request.POST) | {"only": request.POST.get("only", "").replace("\0", "")}
    go = "test" if request.POST.get("use_host_key") else request.POST.get("go", "")
    secret = SecretForm(request.POST, project=here.project) if go == "secret" else None
    if secret is not None:
        if secret.is_valid():
            values["token_secret"] = secret.store(by=person(request)).name
            messages.success(request, f"“{values['token_secret']}” is stored and chosen.")
        form = ImportForm.of(here.project, values)
        form.quiet()
        return _form_page(request, here, model, form, values, secret=secret)
    form = ImportForm.of(here.project, values)
    about = DraftForm(request.POST, project=here.project, model=model, auto_id="draft_%s")
    if about.is_valid() and form.is_valid() and form.test() and go != "test":
        made = _begin(request, here, model, form, about, _sending(request, values))
        if made is not None:
            if replaced := _failed(request, model):
                with contextlib.suppress(Refused):  # the same form, sent twice at once, was quicker
                    replaced.cancel(by=person(request))
            return redirect("endpoints:import", project=project, name=name, pk=made.pk)
    return _form_page(request, here, model, form, values, about=about)


def _failed(request: HttpRequest, model: RegisteredModel) -> VersionImport | None:
    """The import that failed and is to be asked for otherwise."""
    try:
        named = uuid.UUID(request.POST.get("again") or request.GET.get("again") or "")
    except ValueError:
        return None
    return model.imports.unfinished().filter(pk=named, state=ImportState.FAILED).first()


def _sending(request: HttpRequest, values: dict[str, Any]) -> str:
    """What tells this form, answered so, from every other: sent again, it is the same import."""
    told = json.dumps([values, request.POST.get("notes"), request.POST.get("parent")], sort_keys=True, default=str)
    return f"form {request.POST.get('sending') or uuid.uuid4()} {hashlib.sha256(told.encode()).hexdigest()}"


def _begin(
    request: HttpRequest,
    here: Membership,
    model: RegisteredModel,
    form: ImportForm,
    about: DraftForm,
    sending: str,
) -> VersionImport | None:
    look, spec = form.seen, form.pinned
    if look is None or spec is None:
        return None
    given = about.cleaned_data
    more = {"notes": given["notes"], "parent": about.made_from, "only": form.cleaned_data["only"]}

    def launch(pinned: SourceSpec) -> VersionImport:
        return VersionImport.begin(
            model, pinned, form.chosen, terms=look.found.license, by=person(request), **more
        )

    try:
        body = {"import_into": str(model.pk)}
        return once(here.project, sending, body, check=lambda: spec, launch=launch)[0]
    except Refused as refused:
        form.add_error(refused.field if refused.field in form.fields else None, str(refused))
        return None


def _form_page(
    request: HttpRequest,
    here: Membership,
    model: RegisteredModel,
    form: ImportForm,
    values: dict[str, Any],
    **more: Any,
) -> HttpResponse:
    kind = str(form.shown("kind"))
    kept = values.get(posts.KEPT, {})
    cards = [card for card in guide.with_checked(guide.SOURCES, kind) if card.value in KINDS]
    context: dict[str, Any] = {
        "here": here,
        "model": model,
        "form": form,
        "sources": cards,
        "of_kind": {one: form if one == kind else other_kind(one, form, kept.get(one, {})) for one in KINDS},
        "shown": kind,
        "look": form.seen,
        "tested": True,
        "report": report_of(form.seen),
        "offered": form.problem.offer if form.problem else "",
        "about": DraftForm(project=here.project, model=model, auto_id="draft_%s"),
        "secret": SecretForm(project=here.project),
        "inline_secret": True,
        "sending": request.POST.get("sending") or uuid.uuid4(),
        "again": request.POST.get("again") or request.GET.get("again"),
    }
    context |= more
    wrong = request.method == "POST" and (form.errors or context["secret"].errors)
    return render(request, "endpoints/import_new.html", context, status=422 if wrong else 200)


def show(request: HttpRequest, project: str, name: str, pk: uuid.UUID) -> HttpResponse:
    """How far it is; leads on to the version once there is one."""
    here = access.membership(request.user, project, Right.OPERATE)
    one = _import(here, name, pk)
    part = request.GET.get("part") == "progress"
    if one.version is not None:
        at = reverse("endpoints:version", kwargs={"project": project, "name": name, "number": one.version.number})
        return HttpResponse(status=200, headers={"HX-Redirect": at}) if part else redirect(at)
    context = {"here": here, "model": one.model, "one": one, "running": one.state == ImportState.RUNNING}
    context |= {"failed": one.state == ImportState.FAILED and one.draft is not None, **_pace(one)}
    context["uploads"] = one.draft.uploads.count() if one.draft else 0
    context["source"] = one.draft.source if one.draft else lineage_of(one.spec, (), "")
    return render(request, f"endpoints/import.html{'#progress' if part else ''}", context)


def _pace(one: VersionImport) -> dict[str, float | None]:
    """Bytes a second of this run, and the seconds left at it; None without anything to tell it by, or left."""
    ran = (timezone.now() - one.taken_at).total_seconds() if one.taken_at else 0
    came, left = one.bytes_done - one.bytes_before, one.bytes_total - one.bytes_done
    rate = came / ran if one.state == ImportState.RUNNING and ran > 1 and came > 0 and left > 0 else None
    return {"rate": rate, "seconds_left": left / rate if rate else None}


@require_POST
def retry(request: HttpRequest, project: str, name: str, pk: uuid.UUID) -> HttpResponse:
    here = access.membership(request.user, project, Right.OPERATE)
    try:
        _import(here, name, pk).retry(by=person(request), at=timezone.now())
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("endpoints:import", project=project, name=name, pk=pk)


@require_POST
def cancel(request: HttpRequest, project: str, name: str, pk: uuid.UUID) -> HttpResponse:
    here = access.membership(request.user, project, Right.OPERATE)
    try:
        _import(here, name, pk).cancel(by=person(request))
        messages.success(request, "The import is cancelled. What came of it is kept for a while, for another try.")
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("endpoints:model", project=project, name=name)


def _import(here: Membership, name: str, pk: uuid.UUID) -> VersionImport:
    found = VersionImport.objects.filter(pk=pk, model__name=name, model__project=here.project)
    one = found.select_related("model__project", "draft", "version", "created_by", "created_by_key").first()
    if one is None:
        raise Http404("There is no such import.")
    return one
