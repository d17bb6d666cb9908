"""Pages of asynchronous requests: what became of them, and of their webhooks. Never what was asked or answered."""

from __future__ import annotations

from typing import Any

import httpx
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_POST

from accounts import access
from accounts.models import Membership
from accounts.people import person
from accounts.refused import Refused
from accounts.roles import Right
from endpoints.pages import address_of
from gateway.jobs.models import AsyncRequest, State, Told, WebhookSecret

PER_PAGE = 50
PARTS = {"rows", "request"}


@require_GET
def listing(request: HttpRequest, project: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.VIEW)
    asked = {name: request.GET.get(name, "").replace("\0", "").strip() for name in ("endpoint", "state")}
    rows = here.project.async_requests.light().select_related("endpoint")
    if asked["endpoint"]:
        rows = rows.filter(endpoint__name=asked["endpoint"])
    if asked["state"] in State.values:
        rows = rows.filter(state=asked["state"])
    page = Paginator(rows, PER_PAGE).get_page(request.GET.get("page"))
    living = here.project.endpoints.living().order_by("name")
    context = {
        "here": here,
        "page": page,
        "rows": [_row(one) for one in page],
        "asked": asked,
        "endpoints": list(living.values_list("name", flat=True)),
        "states": list(State),
        "example": _example(living.first()),
        "may_operate": access.may(here, Right.OPERATE),
    }
    return _whole_or_part(request, "jobs/list.html", context)


@require_GET
def detail(request: HttpRequest, project: str, request_id: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.VIEW)
    one = _of(here, request_id)
    context = {
        "here": here,
        **_row(one),
        "address": _shown_address(one),
        "error": one.error() if access.may(here, Right.LOGS) else None,
        "hides": one.state == State.FAILED and not access.may(here, Right.LOGS),
        "deliveries": list(one.deliveries.all()[:100]),
        "may_cancel": not one.over and access.may(here, Right.OPERATE),
        "may_redeliver": _can_be_told(one) and access.may(here, Right.OPERATE),
    }
    return _whole_or_part(request, "jobs/detail.html", context)


@require_POST
def cancel(request: HttpRequest, project: str, request_id: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.OPERATE)
    one = _of(here, request_id)
    if one.cancel(by=str(person(request))):
        messages.success(request, "The request is cancelled. If it ran, its instance is being hung up on.")
    else:
        messages.error(request, f"It had {State(one.state).label.lower()} already.")
    return redirect("jobs:detail", project=project, request_id=request_id)


@require_POST
def redeliver(request: HttpRequest, project: str, request_id: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.OPERATE)
    try:
        _of(here, request_id).redeliver(by=str(person(request)))
        messages.success(request, "The webhook is told once more, in a moment.")
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("jobs:detail", project=project, request_id=request_id)


@require_GET
def secret(request: HttpRequest, project: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.VIEW)
    return render(request, "jobs/secret.html", _secret_context(here))


@never_cache
@sensitive_variables("value")
@require_POST
def rotate(request: HttpRequest, project: str) -> HttpResponse:
    """The answer is the only page that shows the secret; sent again it makes no second one."""
    here = access.membership(request.user, project, Right.OPERATE)
    seen = request.POST.get("replacing", "")
    replacing = int(seen) if seen.isdecimal() and len(seen) < 19 else None
    try:
        _, value = WebhookSecret.rotate(here.project, replacing=replacing, by=person(request))
    except Refused as refused:
        messages.warning(request, str(refused))
        return redirect("jobs:secret", project=project)
    return render(request, "jobs/secret.html", {**_secret_context(here), "value": value}, status=201)


def _of(here: Membership, request_id: str) -> AsyncRequest:
    rows = here.project.async_requests.select_related("endpoint", "key", "person")
    return get_object_or_404(rows, request_id=request_id)


def _row(one: AsyncRequest) -> dict[str, Any]:
    return {"one": one, "state": State(one.state), "told": Told(one.told)}


def _can_be_told(one: AsyncRequest) -> bool:
    return one.webhook is not None and one.over and not one.expired


def _shown_address(one: AsyncRequest) -> str:
    """The webhook's address without its query, which may hold a token."""
    opened = one.opened(one.webhook)
    if opened is None:
        return ""
    url = httpx.URL(opened.decode())
    return f"{url.copy_with(query=None, fragment=None)}{'?…' if url.query else ''}"


def _secret_context(here: Membership) -> dict[str, Any]:
    rows = here.project.webhook_secrets.select_related("created_by")
    retiring = rows.filter(retires_at__gt=timezone.now()).first()
    audit = here.project.audit.filter(what__startswith="webhook_secret.")[:20]
    may_operate = access.may(here, Right.OPERATE)
    current = WebhookSecret.current(here.project)
    return {"here": here, "current": current, "retiring": retiring, "may_operate": may_operate, "audit": audit}


def _example(endpoint: Any) -> str:
    """The call that queues a request at a real endpoint of this project."""
    if endpoint is None:
        return ""
    return f"""curl {address_of(endpoint)}/async/chat/completions \\
  -H "Authorization: Bearer $TIR_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"messages": [{{"role": "user", "content": "Say hello"}}], "webhook_url": "https://example.com/hook"}}'"""


def _whole_or_part(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    part = request.GET.get("part", "")
    return render(request, f"{template}#{part}" if part in PARTS else template, context)
