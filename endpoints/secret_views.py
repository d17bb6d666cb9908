"""The page of secrets: names and dates, never a value."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST

from accounts import access
from accounts.models import Membership
from accounts.people import person
from accounts.refused import Refused
from accounts.roles import Right
from endpoints.models import Secret
from endpoints.models.secret import needing
from endpoints.secret_forms import SecretForm, ValueForm


@sensitive_post_parameters("value")
@sensitive_variables("form")
def secrets(request: HttpRequest, project: str) -> HttpResponse:
    """GET lists, POST stores a new one."""
    right = Right.OPERATE if request.method == "POST" else Right.VIEW
    here = access.membership(request.user, project, right)
    form = SecretForm(request.POST or None)
    if not form.is_valid():
        return _page(request, here, form)
    given = form.cleaned_data
    try:
        Secret.store(
            here.project, given["name"], given["value"], description=given["description"], by=person(request)
        )
    except Refused as refused:
        form.add_error(refused.field or None, str(refused))
        return _page(request, here, form)
    messages.success(request, f"{given['name']} is stored.")
    return redirect("endpoints:secrets", project=project)


@sensitive_post_parameters("value")
@sensitive_variables("form")
@require_POST
def replace(request: HttpRequest, project: str, name: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.OPERATE)
    secret = get_object_or_404(here.project.secrets.select_related("project"), name=name)
    form = ValueForm(request.POST)
    if form.is_valid():
        secret.replace(form.cleaned_data["value"], by=person(request))
        messages.success(request, f"{name} has a new value. Running instances get it when they are restarted.")
    else:
        messages.error(request, f"{name} keeps its value: {' '.join(str(text) for text in form.errors['value'])}")
    return redirect("endpoints:secrets", project=project)


@require_POST
def delete(request: HttpRequest, project: str, name: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.OPERATE)
    secret = get_object_or_404(here.project.secrets.select_related("project"), name=name)
    try:
        secret.discard(by=person(request))
        messages.success(request, f"{name} is deleted.")
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("endpoints:secrets", project=project)


def _page(request: HttpRequest, here: Membership, form: SecretForm) -> HttpResponse:
    rows = list(here.project.secrets.select_related("created_by"))
    users = needing(here.project, {secret.name for secret in rows})
    return render(
        request,
        "endpoints/secrets.html",
        {
            "here": here,
            "rows": [(secret, users.get(secret.name, [])) for secret in rows],
            "form": form,
            "replacing": ValueForm(auto_id=False),
            "may_operate": access.may(here, Right.OPERATE),
        },
        status=422 if form.is_bound else 200,
    )
