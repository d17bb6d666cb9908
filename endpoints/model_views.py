"""The registry's pages: models, their versions, files, what was said of them and who uses them."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Prefetch
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from accounts import access
from accounts.models import Membership, Project
from accounts.people import person
from accounts.refused import Refused
from accounts.roles import Right
from endpoints import model_guide
from endpoints.model_forms import AboutForm, DraftForm, NewModelForm
from endpoints.models import Draft, ImportState, ModelVersion, RegisteredModel
from endpoints.models.registry import visible_version
from endpoints.sources.layout import NATURAL
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
KINDS = {
    "gguf": "GGUF",
    "onnx": "ONNX",
    "model_py": "model.py",
    "transformers": "transformers",
    "unknown": "Not recognised",
}


def models(request: HttpRequest, project: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.VIEW)
    wanted = request.GET.get("q", "").replace("\0", "").strip()[:80]
    newest = Prefetch("versions", ModelVersion.objects.order_by("-number"))
    rows = RegisteredModel.objects.usable_in(here.project).prefetch_related(newest)
    rows = rows.annotate(begun=Count("drafts")).order_by("name", "pk")
    page = Paginator(rows.matching(wanted) if wanted else rows, 50).get_page(request.GET.get("page"))
    context = {"here": here, "page": page, "wanted": wanted, "kinds": KINDS}
    context |= {"may_operate": access.may(here, Right.OPERATE), "commands": model_guide.commands(None)}
    return render(request, "endpoints/models.html", context)


def new(request: HttpRequest, project: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.OPERATE)
    form = NewModelForm(request.POST or None)
    if form.is_valid():
        try:
            made = RegisteredModel.open(here.project, by=person(request), **form.cleaned_data)
        except Refused as refused:
            form.add_error(refused.field or None, str(refused))
        else:
            messages.success(request, f"{made.name} is registered. Upload its first version.")
            return redirect("endpoints:model", project=project, name=made.name)
    status = 422 if form.is_bound else 200
    return render(request, "endpoints/model_new.html", {"here": here, "form": form}, status=status)


def model(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """GET shows it, POST changes what is said of it."""
    right = Right.OPERATE if request.method == "POST" else Right.VIEW
    here = access.membership(request.user, project, right)
    found = model_of(here.project, name)
    form = AboutForm(request.POST or None, instance=found)
    if form.is_valid():
        try:
            model_of(here.project, name).describe(by=person(request), **form.cleaned_data)
        except Refused as refused:
            form.add_error(None, str(refused))
        else:
            messages.success(request, f"{name} is described anew.")
            return redirect("endpoints:model", project=project, name=name)
    return _model_page(request, here, model_of(here.project, name), form)


def _model_page(request: HttpRequest, here: Membership, found: RegisteredModel, form: AboutForm) -> HttpResponse:
    versions = list(found.versions.select_related("created_by"))
    own = access.may(here, Right.OPERATE) and found.project_id is not None
    imports = list(found.imports.unfinished().select_related("created_by")) if own else []
    context = {
        "here": here,
        "model": found,
        "versions": versions,
        "newest": next(iter(versions), None),
        "kinds": KINDS,
        "imports": imports,
        "importing": any(one.state == ImportState.RUNNING for one in imports),
        "drafts": _drafts(found) if own else [],
        "users": found.used_by(here.project),
        "form": form,
        "draft_form": DraftForm(project=here.project, model=found, auto_id="draft_%s") if own else None,
        "commands": model_guide.commands(found),
        "may_operate": access.may(here, Right.OPERATE),
        "may_change": own,
    }
    part = "#versions" if request.GET.get("part") == "versions" else ""
    return render(request, f"endpoints/model.html{part}", context, status=422 if form.errors else 200)


def _drafts(model: RegisteredModel) -> Any:
    """Those that a person fills; what is imported has a table of its own."""
    elsewhere = model.imports.unfinished().values("draft")
    return model.drafts.exclude(pk__in=elsewhere).select_related("created_by").prefetch_related("uploads")


def version(request: HttpRequest, project: str, name: str, number: int) -> HttpResponse:
    here = access.membership(request.user, project, Right.VIEW)
    found = version_of(here.project, name, number)
    context = {
        "here": here,
        "model": found.model,
        "version": found,
        "kind": KINDS.get(found.kind, found.kind),
        "engine": NATURAL.get(found.kind, ""),
        "facts": _facts(found),
        "notes": found.findings,
        "files": [(file, found.source.get("objects", {}).get(file["path"], "")) for file in found.files],
        "lineage": _linked(here, found),
        "children": found.children.filter(model__in=RegisteredModel.objects.usable_in(here.project)),
        "users": found.used_by(here.project),
        "may_operate": access.may(here, Right.OPERATE),
        "may_change": access.may(here, Right.OPERATE) and found.model.project_id is not None,
    }
    return render(request, "endpoints/version.html", context)


@require_POST
def delete_version(request: HttpRequest, project: str, name: str, number: int) -> HttpResponse:
    here = access.membership(request.user, project, Right.OPERATE)
    found = version_of(here.project, name, number)
    typed = f"{name} v{number}"
    if request.POST.get("confirm") != typed:
        messages.error(request, f"Nothing was deleted. Type “{typed}” to delete it.")
        return redirect("endpoints:version", project=project, name=name, number=number)
    try:
        found.discard(by=person(request))
        messages.success(request, f"{typed} is deleted. Its number is not used again.")
    except Refused as refused:
        messages.error(request, str(refused))
        return redirect("endpoints:version", project=project, name=name, number=number)
    return redirect("endpoints:model", project=project, name=name)


@require_POST
def delete(request: HttpRequest, project: str, name: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.OPERATE)
    found = model_of(here.project, name)
    if request.POST.get("confirm") != name:
        messages.error(request, f"Nothing was deleted. Type “{name}” to delete it.")
        return redirect("endpoints:model", project=project, name=name)
    try:
        found.discard(by=person(request))
        messages.success(request, f"{name} is deleted with all its versions.")
    except Refused as refused:
        messages.error(request, str(refused))
        return redirect("endpoints:model", project=project, name=name)
    return redirect("endpoints:models", project=project)


@require_POST
def deploy(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """Start a draft whose model is chosen already, with the framework that loads its kind."""
    here = access.membership(request.user, project, Right.OPERATE)
    number = request.POST.get("version", "")
    wanted = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else None
    chosen = visible_version(here.project, name, wanted)
    if chosen is None or (number and wanted is None):
        raise Http404("This model has no such version.")
    source = {"kind": SourceKind.REGISTRY, "model": name, "version": chosen.number}
    answers = {"basics": {"name": free_name(name)}, "source": source}
    if chosen.kind in NATURAL:
        answers["method"] = {"method": "prebuilt", "framework": NATURAL[chosen.kind]}
    draft = Draft.objects.create(project=here.project, user=person(request), answers=answers)
    return redirect("endpoints:step", project=project, draft=draft.pk, step="basics")


def model_of(project: Project, name: str) -> RegisteredModel:
    found = RegisteredModel.objects.named(name, project)
    if found is None:
        raise Http404("The registry has no such model.")
    return found


def version_of(project: Project, name: str, number: int) -> ModelVersion:
    found = visible_version(project, name, number) if number else None
    if found is None:
        raise Http404("This model has no such version.")
    return found


def _linked(here: Membership, found: ModelVersion) -> list[tuple[str, str]]:
    """The lineage as labels with addresses; "" where there is no page, or none that this project sees."""
    steps = []
    for ancestor in found.lineage:
        above = ancestor.version
        seen = above is not None and above.model.project_id in (None, here.project.pk)
        if above is not None and not seen:
            steps.append(("A version of another project", ""))
            continue
        names = {"project": here.project.slug, "name": above.model.name, "number": above.number} if above else {}
        steps.append((ancestor.label, reverse("endpoints:version", kwargs=names) if names else ""))
    return steps


def _facts(version: ModelVersion) -> list[tuple[str, Any]]:
    known = [(label, version.facts.get(fact)) for label, fact in FACTS]
    return [(label, value) for label, value in known if value not in (None, "")]
