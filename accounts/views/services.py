"""Pages of service accounts."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts import access
from accounts.forms.keys import AccountForm, AllowanceForm, ChangeAccountForm, RotateForm
from accounts.models import ApiKey, Membership, ServiceAccount
from accounts.models.allowance import words
from accounts.people import person
from accounts.refused import Refused
from accounts.roles import Right


def accounts(request: HttpRequest, project: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.VIEW)
    rows = here.project.service_accounts.listed(timezone.now()).order_by("name")
    page = Paginator(rows, 50).get_page(request.GET.get("page"))
    return render(
        request,
        "accounts/services.html",
        {
            "here": here,
            "page": page,
            "rows": list(zip(page.object_list, words(here.project, page.object_list), strict=True)),
            "may_operate": access.may(here, Right.OPERATE),
            "audit": here.project.audit.filter(what__startswith="service.")[:20],
        },
    )


@never_cache
def new(request: HttpRequest, project: str) -> HttpResponse:
    """The answer to the POST is the only page that shows the first credential's secret."""
    here = access.membership(request.user, project, Right.OPERATE)
    form = AccountForm(request.POST or None, project=here.project, initial={"request_id": uuid.uuid4()})
    if not form.is_valid():
        return _form(request, "accounts/service_new.html", here, form)
    given = form.cleaned_data
    try:
        account, key, secret = ServiceAccount.open(
            here.project,
            name=given["name"],
            description=given["description"],
            endpoint_ids=form.endpoint_ids(),
            limits=form.limits(),
            expires_at=form.expires_at(),
            request_id=given["request_id"],
            by=person(request),
        )
    except Refused as refused:
        form.add_error(refused.field or None, str(refused))
        return _form(request, "accounts/service_new.html", here, form)
    return _made(request, here, account, key, secret)


def account(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    here, found = _account(request, project, pk, Right.VIEW)
    return _page(request, here, found, RotateForm(initial={"request_id": uuid.uuid4()}))


def change(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    here, found = _account(request, project, pk, Right.OPERATE)
    initial = {"description": found.description} | AllowanceForm.initial_of(found)
    form = ChangeAccountForm(request.POST or None, project=here.project, initial=initial)
    if not form.is_valid():
        return _form(request, "accounts/service_change.html", here, form, account=found)
    changes = {"description": form.cleaned_data["description"], "endpoint_ids": form.endpoint_ids()}
    found.change(changes | form.limits(), by=person(request))
    messages.success(request, f"{found.name} is changed. Gateways know within two seconds.")
    return redirect("accounts:service", project=project, pk=pk)


@never_cache
@require_POST
def rotate(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    """The answer is the only page that shows the new credential's secret; sent again it makes no second one."""
    here, found = _account(request, project, pk, Right.OPERATE)
    form, now = RotateForm(request.POST), timezone.now()
    if not form.is_valid():
        return _page(request, here, found, form)
    try:
        key, secret = found.rotate(
            at=now,
            old_until=form.old_until(now),
            expires_at=form.expires_at(),
            request_id=form.cleaned_data["request_id"],
            by=person(request),
        )
    except Refused as refused:
        messages.warning(request, str(refused))
        return redirect("accounts:service", project=project, pk=pk)
    return _made(request, here, found, key, secret)


@require_POST
def disable(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    _, found = _account(request, project, pk, Right.OPERATE)
    if found.disable(at=timezone.now(), by=person(request)):
        messages.success(request, f"{found.name} is disabled. Its credentials are refused until you enable it.")
    return redirect("accounts:service", project=project, pk=pk)


@require_POST
def enable(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    _, found = _account(request, project, pk, Right.OPERATE)
    if found.enable(by=person(request)):
        messages.success(request, f"{found.name} is enabled. Its credentials work again.")
    return redirect("accounts:service", project=project, pk=pk)


@require_POST
def delete(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    _, found = _account(request, project, pk, Right.OPERATE)
    if request.POST.get("confirm") != found.name:
        messages.error(request, f"{found.name} was not deleted: its name was not typed.")
        return redirect("accounts:service", project=project, pk=pk)
    found.discard(at=timezone.now(), by=person(request))
    messages.success(request, f"{found.name} is deleted. Its credentials are refused from now on.")
    return redirect("accounts:services", project=project)


@require_POST
def revoke(request: HttpRequest, project: str, pk: int, credential: int) -> HttpResponse:
    _, found = _account(request, project, pk, Right.OPERATE)
    key = get_object_or_404(found.credentials.select_related("project"), pk=credential)
    if key.revoke(at=timezone.now(), by=person(request)):
        messages.success(request, f"{key.prefix}… was revoked. It is refused from now on.")
    return redirect("accounts:service", project=project, pk=pk)


def _account(request: HttpRequest, project: str, pk: int, right: Right) -> tuple[Membership, ServiceAccount]:
    here = access.membership(request.user, project, right)
    found = get_object_or_404(here.project.service_accounts.select_related("project", "created_by"), pk=pk)
    return here, found


def _page(request: HttpRequest, here: Membership, found: ServiceAccount, form: RotateForm) -> HttpResponse:
    return render(
        request,
        "accounts/service.html",
        {
            "here": here,
            "account": found,
            "allowance": words(here.project, [found])[0],
            "credentials": found.credentials.select_related("created_by").order_by("-created_at", "-pk")[:50],
            "form": form,
            "may_operate": access.may(here, Right.OPERATE),
        },
        status=422 if form.is_bound else 200,
    )


def _form(request: HttpRequest, template: str, here: Membership, form: AllowanceForm, **more: Any) -> HttpResponse:
    page = {"here": here, "form": form, **more}
    return render(request, template, page, status=422 if form.is_bound else 200)


def _made(
    request: HttpRequest, here: Membership, account: ServiceAccount, key: ApiKey, secret: str
) -> HttpResponse:
    page = {"here": here, "account": account, "key": key, "secret": secret}
    page["allowance"] = words(here.project, [account])[0]
    return render(request, "accounts/key_made.html", page, status=201)
