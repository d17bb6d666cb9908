"""Pages of API keys."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts import access
from accounts.forms.keys import ChangeKeyForm, KeyForm
from accounts.models import ApiKey, Membership
from accounts.models.allowance import words
from accounts.people import person
from accounts.refused import Refused
from accounts.roles import Right


def keys(request: HttpRequest, project: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.VIEW)
    rows = here.project.api_keys.listed().select_related("created_by")
    page = Paginator(rows, 50).get_page(request.GET.get("page"))
    allowances = words(here.project, page.object_list)
    return render(
        request,
        "accounts/keys.html",
        {
            "here": here,
            "page": page,
            "rows": list(zip(page.object_list, allowances, strict=True)),
            "may_operate": access.may(here, Right.OPERATE),
            "may_administer": access.may(here, Right.ADMINISTER),
            "audit": here.project.audit.filter(what__startswith="key.")[:20],
        },
    )


@never_cache
def new(request: HttpRequest, project: str) -> HttpResponse:
    """The answer to the POST is the only page that shows the secret; sent again it makes no second key."""
    here = access.membership(request.user, project, Right.OPERATE)
    form = KeyForm(
        request.POST or None,
        project=here.project,
        may_manage=access.may(here, Right.ADMINISTER),
        initial={"request_id": uuid.uuid4()},
    )
    if not form.is_valid():
        page = {"here": here, "form": form}
        return render(request, "accounts/key_new.html", page, status=422 if form.is_bound else 200)
    given = form.cleaned_data
    try:
        key, secret = ApiKey.issue(
            here.project,
            name=given["name"],
            scopes=given["scopes"],
            by=person(request),
            expires_at=form.expires_at(),
            request_id=given["request_id"],
            endpoint_ids=form.endpoint_ids(),
            limits=form.limits(),
        )
    except Refused as refused:
        messages.warning(request, str(refused))
        return redirect("accounts:keys", project=project)
    page = {"here": here, "key": key, "secret": secret, "allowance": words(here.project, [key])[0]}
    return render(request, "accounts/key_made.html", page, status=201)


def change(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    here, key = _key(request, project, pk)
    initial = ChangeKeyForm.initial_of(key)
    form = ChangeKeyForm(request.POST or None, project=here.project, manages=key.manages, initial=initial)
    if form.is_valid():
        try:
            key.change({"endpoint_ids": form.endpoint_ids()} | form.limits(), by=person(request))
        except Refused as refused:
            messages.warning(request, str(refused))
        else:
            messages.success(request, f"{key.name} is changed. Gateways know within two seconds.")
        return redirect("accounts:keys", project=project)
    page = {"here": here, "form": form, "key": key}
    return render(request, "accounts/key_change.html", page, status=422 if form.is_bound else 200)


@require_POST
def revoke(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    _, key = _key(request, project, pk)
    if key.revoke(at=timezone.now(), by=person(request)):
        messages.success(request, f"{key.name} was revoked. It is refused from now on.")
    return redirect("accounts:keys", project=project)


def _key(request: HttpRequest, project: str, pk: int) -> tuple[Membership, ApiKey]:
    """One that this person may change: whoever operates any, but those that manage."""
    here = access.membership(request.user, project, Right.OPERATE)
    key = get_object_or_404(here.project.api_keys.listed(), pk=pk)
    return access.membership(request.user, project, Right.ADMINISTER) if key.manages else here, key
