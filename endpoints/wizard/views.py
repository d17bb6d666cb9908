"""The wizard's pages: load and authorise, read what was posted, keep it, show or go on."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.access import membership
from accounts.models import Project
from accounts.people import person
from accounts.roles import Right
from endpoints.models import Draft, Secret
from endpoints.models.endpoint import Refused
from endpoints.wizard import drafts, pages, posts
from endpoints.wizard.forms import name_problem
from endpoints.wizard.looks import Look
from endpoints.wizard.method_form import MethodForm
from endpoints.wizard.secret_form import SecretForm
from endpoints.wizard.situation import Catalogue
from endpoints.wizard.source_form import SourceForm
from endpoints.wizard.steps import BY_SLUG, LAST, STEPS, Step, after, before

# step → the field that a new secret is chosen for; "" for a row of its own
WITH_SECRETS = {"method": "registry_secret", "source": "token_secret", "environment": ""}


def _project(request: HttpRequest, slug: str) -> Project:
    return membership(request.user, slug, Right.OPERATE).project


def _draft(request: HttpRequest, project: str, draft: uuid.UUID) -> Draft:
    own = Draft.objects.editable_by(request.user).filter(project=_project(request, project))
    return get_object_or_404(own.select_related("project", "endpoint"), pk=draft)


def _go(draft: Draft, slug: str, anchor: str = "") -> HttpResponse:
    address = reverse("endpoints:step", args=[draft.project.slug, draft.pk, slug])
    return redirect(address + anchor)


def _made(draft: Draft) -> HttpResponse:
    return redirect("endpoints:detail", project=draft.project.slug, name=str(draft.endpoint))


@require_http_methods(["GET", "POST"])
def new(request: HttpRequest, project: str) -> HttpResponse:
    """Start a draft; with one unfinished, ask first whether to go on with it."""
    into = _project(request, project)
    unfinished = Draft.objects.editable_by(request.user).filter(project=into, endpoint=None)
    if request.method == "GET" and unfinished.exists():
        rows = [pages.row_of(draft) for draft in unfinished[:20]]
        return render(request, "endpoints/wizard/drafts.html", {"into": into, "drafts": rows})
    return _go(drafts.start(into, person(request)), STEPS[0].slug)


@require_GET
def resume(request: HttpRequest, project: str, draft: uuid.UUID) -> HttpResponse:
    found = _draft(request, project, draft)
    return _made(found) if found.endpoint else _go(found, STEPS[found.reached].slug)


@require_http_methods(["GET", "POST"])
def step(request: HttpRequest, project: str, draft: uuid.UUID, step: str) -> HttpResponse:
    found = _draft(request, project, draft)
    at = BY_SLUG.get(step)
    if at is None:
        raise Http404("The wizard has no such step.")
    if found.endpoint:
        return _made(found)
    if at.position > found.reached:
        messages.info(request, f"“{at.label}” opens once the steps before it are done.")
        return _go(found, STEPS[found.reached].slug)
    if request.method == "GET":
        return _show(request, found, at, values=_chosen(found, at, request.GET.get("chosen", "")))
    return _deploy(request, found) if at == LAST else _answer(request, found, at)


def _chosen(draft: Draft, at: Step, secret: str) -> dict[str, Any] | None:
    """The step's answers with a secret that was stored just now: what was typed may be on its way still, and would
    take the choice back."""
    catalogue, field = Catalogue(draft.project), WITH_SECRETS.get(at.slug)
    if not field or secret not in catalogue.secrets:
        return None
    return drafts.answers_of(draft, catalogue)[at.slug] | {field: secret}


def _show(request: HttpRequest, draft: Draft, at: Step, *, status: int = 200, **more: Any) -> HttpResponse:
    context = pages.context_of(draft, at, **more)
    template = at.template
    if request.htmx.target == "step-fields":  # type: ignore[attr-defined]
        template += "#fields"
        context["fragment"] = True
    return render(request, template, context, status=status)


def _answer(request: HttpRequest, draft: Draft, at: Step) -> HttpResponse:
    """A posted step: go back, stay for another row, test the connection or the image, or be judged and go on."""
    catalogue = Catalogue(draft.project)
    values = posts.answers(at.slug, drafts.answers_of(draft, catalogue)[at.slug], request.POST)
    kept = posts.storable(at.slug, values)
    go = request.POST.get("go", "next")
    if go == "back" or go.partition("-")[0] in ("add", "drop", "use", "secret"):
        draft = drafts.keep_typed(draft, at.slug, kept)
        if go == "back":
            return _go(draft, before(at).slug)
        return _go(draft, at.slug, "#new-secret") if go == "secret" else _show(request, draft, at, row=go)
    judged = drafts.judged(draft, catalogue, {at.slug: values})
    form = judged.form(at.slug)
    if go == "check" and isinstance(form, MethodForm):
        return _check(request, draft, at, values, form)
    look = None
    if isinstance(form, SourceForm) and (go == "test" or judged.situation.look is None):
        look = _reached(form)
    if not form.is_valid():
        draft = drafts.keep_typed(draft, at.slug, kept)
        return _show(request, draft, at, status=422, values=values, form=form)
    if go == "test" and look is not None:
        draft = drafts.keep_look(drafts.keep_typed(draft, at.slug, kept), look)
        return _show(request, draft, at, tested=True)
    to = LAST if go == "summary" else after(at)
    draft = drafts.accept(draft, at.slug, kept, reached=to.position, look=look)
    return _go(draft, to.slug)


def _check(request: HttpRequest, draft: Draft, at: Step, values: dict[str, Any], form: MethodForm) -> HttpResponse:
    """Keep what the image's registry says of it now, or show at its field what is wrong."""
    draft = drafts.keep_typed(draft, at.slug, posts.storable(at.slug, values))
    if not form.is_valid():
        return _show(request, draft, at, status=422, values=values, form=form)
    look = form.check()
    draft = drafts.keep_image(draft, look)
    if look is None:
        return _show(request, draft, at, status=422, values=values, form=form, unseen=True)
    return _show(request, draft, at, tested=True)


def _reached(form: SourceForm) -> Look | None:
    """Reach the source anew, whatever an earlier look said of it."""
    form.full_clean()
    return form.test() if form.is_valid() else None


def _deploy(request: HttpRequest, draft: Draft) -> HttpResponse:
    if request.POST.get("go") == "back":
        return _go(draft, before(LAST).slug)
    if not request.POST.get("cost"):
        return _show(request, draft, LAST, status=422, cost_error="Confirm the cost first: tick the box.")
    try:
        drafts.deploy(draft, by=person(request))
    except drafts.Misfit as misfit:
        messages.error(request, "This can't be deployed yet. See what is marked.")
        return _go(draft, misfit.step)
    except Refused as refused:
        messages.error(request, str(refused))
        return _go(draft, "basics" if refused.field == "name" else LAST.slug)
    draft.refresh_from_db(fields=["endpoint"])
    return _made(draft)


@require_POST
def panel(request: HttpRequest, project: str, draft: uuid.UUID) -> HttpResponse:
    """Keep what is typed in a step, and show what it means for cost and memory."""
    found = _draft(request, project, draft)
    at = BY_SLUG.get(request.POST.get("step", ""))
    if at is None or at == LAST or found.endpoint:
        return HttpResponse(status=204)
    values = posts.answers(at.slug, drafts.answers_of(found, Catalogue(found.project))[at.slug], request.POST)
    found = drafts.keep_typed(found, at.slug, posts.storable(at.slug, values))
    template = "estimated" if at.slug == "scaling" else "panel"
    return render(request, f"endpoints/wizard/{template}.html", pages.panel_context(found))


@require_GET
def name(request: HttpRequest, project: str, draft: uuid.UUID) -> HttpResponse:
    """Whether a name may be had, said while it is typed."""
    _draft(request, project, draft)
    wanted = request.GET.get("name", "").strip().replace("\0", "")[:200]
    problem = name_problem(wanted) if wanted else "The endpoint needs a name, such as my-model."
    return render(request, "endpoints/wizard/name.html", {"wanted": wanted, "problem": problem})


@require_POST
def undo(request: HttpRequest, project: str, draft: uuid.UUID) -> HttpResponse:
    found = _draft(request, project, draft)
    step = drafts.undo(found)
    if step:
        messages.success(request, f"Undone: “{BY_SLUG[step].label}” is as it was, and so is what hung on it.")
    return _go(found, step or STEPS[found.reached].slug)


@sensitive_post_parameters("value")
@sensitive_variables("form")
@require_POST
def secret(request: HttpRequest, project: str, draft: uuid.UUID) -> HttpResponse:
    """Store a secret without leaving the draft; it is chosen at once where it was wanted. What else stands in the
    step's form comes with it where the page could send it."""
    found = _draft(request, project, draft)
    step = request.POST.get("step", "")
    at = step if step in WITH_SECRETS else "source"
    values = drafts.answers_of(found, Catalogue(found.project))[at]
    if request.POST.get("beside"):
        values = posts.answers(at, values, request.POST)
    form = SecretForm(request.POST, project=found.project)
    if not form.is_valid():
        drafts.keep_typed(found, at, posts.storable(at, values))
        messages.error(request, " ".join(str(text) for texts in form.errors.values() for text in texts))
        return _go(found, at, "#new-secret")
    stored: Secret = form.store(by=request.user)
    if field := WITH_SECRETS[at]:
        values |= {field: stored.name}
    else:
        values |= {"secrets": [*values["secrets"], [form.variable, stored.name]]}
    drafts.keep_typed(found, at, posts.storable(at, values))
    messages.success(request, f"Secret “{stored.name}” is stored and chosen.")
    return _go(found, at, f"?chosen={stored.name}" if WITH_SECRETS[at] else "")


@require_POST
def discard(request: HttpRequest, project: str, draft: uuid.UUID) -> HttpResponse:
    found = _draft(request, project, draft)
    if found.endpoint is None:
        found.delete()
        messages.info(request, "The draft is deleted.")
    return redirect("endpoints:new", project=project)
