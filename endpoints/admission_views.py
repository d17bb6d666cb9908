"""The form of the traffic rules: changed while calls go on, without a deployment."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from accounts.people import person
from accounts.refused import Refused
from accounts.roles import Right
from endpoints import acts, admission_form, views
from endpoints.admission_form import AdmissionForm, typed
from endpoints.models import Endpoint


@require_POST
def rules(request: HttpRequest, project: str, name: str) -> HttpResponse:
    endpoint = get_object_or_404(views.visible(request), project__slug=project, name=name)
    if not endpoint.project.allows(request.user, Right.OPERATE):
        raise PermissionDenied(acts.LOOK_ONLY)
    form = AdmissionForm(request.POST)
    if not form.is_valid():
        return _page(request, endpoint, form)
    try:
        done = endpoint.update_admission(by=person(request), **_asked(request, form))
    except Refused as refused:
        form.add_error(refused.field or None, str(refused))
        return _page(request, endpoint, form)
    messages.success(request, "The traffic rules hold from now on." if done else "The rules were so already.")
    return HttpResponseRedirect(reverse("endpoints:detail", args=[project, name]) + "?tab=traffic")


def _asked(request: HttpRequest, form: AdmissionForm) -> dict[str, Any]:
    """What this person changed on their page: what somebody else changed meanwhile stays."""
    return {name: value for name, value in form.cleaned_data.items() if _was(request, name) != typed(value)}


def _was(request: HttpRequest, name: str) -> str | None:
    """A field as this person's page first showed it; a browser sends lines with its own ends."""
    sent = request.POST.get(f"was_{name}")
    return None if sent is None else "\n".join(sent.splitlines())


def _page(request: HttpRequest, endpoint: Endpoint, form: AdmissionForm) -> HttpResponse:
    context = views.context_of(request, endpoint, "traffic")
    was = {name: _was(request, name) or "" for name in form.fields}
    context |= admission_form.context_of(endpoint, form, was)
    context["tabs_url"] = reverse("endpoints:detail", args=[endpoint.project.slug, endpoint.name])
    return render(request, "endpoints/detail.html", context, status=422)
