"""The scaling policy's form: what may cost more is shown before it is done, with and without JavaScript."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from accounts.people import person
from accounts.refused import Refused
from accounts.roles import Right
from endpoints import acts, scaling_pages, views
from endpoints.models import Endpoint
from endpoints.models.scaled import POLICY, refuse_policy
from endpoints.policy_form import PolicyForm
from endpoints.scaling_pages import Change


@require_POST
def policy(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """Update the policy of an endpoint that runs. `go=preview`: only say what it would mean."""
    endpoint = get_object_or_404(views.visible(request), project__slug=project, name=name)
    if not endpoint.project.allows(request.user, Right.OPERATE):
        raise PermissionDenied(acts.LOOK_ONLY)
    form = PolicyForm(request.POST)
    change = _change(request, endpoint, form)
    if request.POST.get("go") == "preview":
        context = views.context_of(request, endpoint, "scaling") | {"form": form, "change": change}
        return render(request, "endpoints/scaling.html#policy_change", context)
    if change is None:
        return _page(request, endpoint, form, status=422)
    if change.costlier and request.POST.get("seen") != change.seen:
        return _page(request, endpoint, form, change=change, unseen=True)
    try:
        done = endpoint.update_scaling(by=person(request), **_asked(request, form))
    except Refused as refused:
        form.add_error(refused.field or None, str(refused))
        return _page(request, endpoint, form, status=422)
    said = "The scaling policy holds from now on; no instance restarts." if done else "The policy was so already."
    messages.success(request, said)
    return HttpResponseRedirect(reverse("endpoints:detail", args=[project, name]) + "?tab=scaling")


def _change(request: HttpRequest, endpoint: Endpoint, form: PolicyForm) -> Change | None:
    """What the form asks for; None where it can't be, which its fields then say."""
    if not form.is_valid():
        return None
    asked = _asked(request, form)
    try:
        refuse_policy(endpoint.policy | asked, given=asked)
    except Refused as refused:  # by what another tab changed meanwhile
        form.add_error(refused.field, str(refused))
        return None
    return scaling_pages.change_of(endpoint, asked, timezone.now())


def _asked(request: HttpRequest, form: PolicyForm) -> dict[str, Any]:
    """What this person changed on their page: what somebody else changed meanwhile stays."""
    values = form.cleaned_data.items()
    return {name: value for name, value in values if request.POST.get(f"was_{name}") != str(value)}


def _present(request: HttpRequest) -> list[tuple[str, str]]:
    """The policy as this person's page first showed it."""
    return [(name, request.POST.get(f"was_{name}", "")) for name in POLICY]


def _page(
    request: HttpRequest, endpoint: Endpoint, form: PolicyForm, *, status: int = 200, **more: Any
) -> HttpResponse:
    context = views.context_of(request, endpoint, "scaling")
    context |= scaling_pages.context_of(endpoint, context["now"], form, present=_present(request), **more)
    context["tabs_url"] = reverse("endpoints:detail", args=[endpoint.project.slug, endpoint.name])
    return render(request, "endpoints/detail.html", context, status=status)
