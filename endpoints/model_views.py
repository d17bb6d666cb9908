"""The registry's pages: models, their versions, files and what their headers say."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.db.models import Prefetch
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from accounts import access
from accounts.models import Project
from accounts.people import person
from accounts.roles import Right
from endpoints.models import Draft, ModelVersion, RegisteredModel
from endpoints.spec import SourceKind
from endpoints.wizard.drafts import free_name

# label, the header's fact
FACTS = [
    ("Architecture", "architecture"),
    ("Parameters", "parameter_count"),
    ("Format of the weights", "quantization"),
    ("Longest context", "context_length"),
    ("Layers", "block_count"),
    ("Embedding length", "embedding_length"),
    ("Vocabulary", "vocab_size"),
    ("Tokenizer", "tokenizer_model"),
    ("License", "license"),
    ("GGUF version", "version"),
]


def models(request: HttpRequest, project: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.VIEW)
    newest = Prefetch("versions", ModelVersion.objects.order_by("-number"))
    rows = RegisteredModel.objects.usable_in(here.project).prefetch_related(newest)
    page = Paginator(rows, 50).get_page(request.GET.get("page"))
    return render(request, "endpoints/models.html", {"here": here, "page": page})


def model(request: HttpRequest, project: str, name: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.VIEW)
    found = _model(here.project, name)
    versions = list(found.versions.select_related("created_by"))
    shown = _chosen(versions, request.GET.get("version"))
    return render(
        request,
        "endpoints/model.html",
        {
            "here": here,
            "model": found,
            "versions": versions,
            "shown": shown,
            "facts": _facts(shown) if shown else [],
            "may_operate": access.may(here, Right.OPERATE),
        },
    )


@require_POST
def deploy(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """Start a draft whose model is chosen already."""
    here = access.membership(request.user, project, Right.OPERATE)
    found = _model(here.project, name)
    version = _chosen(list(found.versions.all()), request.POST.get("version"))
    if version is None:
        raise Http404("This model has no version yet.")
    source = {"kind": SourceKind.REGISTRY, "model": found.name, "version": version.number}
    answers = {"basics": {"name": free_name(found.name)}, "source": source}
    draft = Draft.objects.create(project=here.project, user=person(request), answers=answers)
    return redirect("endpoints:step", project=project, draft=draft.pk, step="basics")


def _model(project: Project, name: str) -> RegisteredModel:
    """The project's own before the shared one of the same name, as a deployment would find it."""
    mine = RegisteredModel.objects.usable_in(project).filter(name=name)
    found = sorted(mine, key=lambda model: model.project_id is None)
    if not found:
        raise Http404("The registry has no such model.")
    return found[0]


def _chosen(versions: list[ModelVersion], number: str | None) -> ModelVersion | None:
    """The named version, the newest if none is named."""
    if not number:
        return versions[0] if versions else None
    for version in versions:
        if str(version.number) == number:
            return version
    raise Http404("This model has no such version.")


def _facts(version: ModelVersion) -> list[tuple[str, Any]]:
    known = [(label, version.facts.get(fact)) for label, fact in FACTS]
    return [(label, value) for label, value in known if value not in (None, "")]
