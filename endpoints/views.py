"""The list of endpoints and the page of one. What they show live is fetched again from the same URLs."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from accounts.models import Project
from accounts.roles import Right
from endpoints import acts, admission_form, calling, pages, scaling_pages
from endpoints.models import Endpoint
from endpoints.models.deployment import DeploymentState
from endpoints.status import Desired, Status

PER_PAGE = 50
TABS = ("overview", "metrics", "logs", "requests", "scaling", "traffic", "events", "revisions")
PARTS = {"problems", "status", "timeline", "instances", "events", "actions", "scale", "tryit", "emergency_cost"}


@require_GET
def listing(request: HttpRequest, project: str) -> HttpResponse:
    here = get_object_or_404(Project.objects.visible_to(request.user), slug=project)
    asked = {name: request.GET.get(name, "").strip() for name in ("q", "status", "sort")}
    all_of_them = Endpoint.objects.visible_to(request.user).filter(project=here)
    found = pages.listing(all_of_them, query=asked["q"], status=asked["status"], sort=asked["sort"])
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    revisions = pages.newest_revisions(page)
    rows = [(endpoint, revisions.get(endpoint.pk)) for endpoint in page]
    context = {
        "here": here,
        "page": page,
        "rows": [_row(endpoint, revision) for endpoint, revision in rows],
        "asked": asked,
        "statuses": [status for status in Status if status != Status.DELETED],
        "may_operate": here.allows(request.user, Right.OPERATE),
        "live_url": f"/ws/projects/{here.slug}/",
    }
    template = "endpoints/list.html"
    return render(request, f"{template}#rows" if request.GET.get("part") == "rows" else template, context)


def _row(endpoint: Endpoint, revision: Any) -> dict[str, Any]:
    spec = revision.wish if revision else None
    return {
        "endpoint": endpoint,
        "status": Status(endpoint.status),
        "busy": endpoint.status in pages.BUSY,
        "model": pages.model_name(spec) if spec else "",
        "machine": revision.instance_type if revision else "",
    }


@require_GET
def detail(request: HttpRequest, project: str, name: str) -> HttpResponse:
    endpoint = get_object_or_404(visible(request), project__slug=project, name=name)
    tab, part = request.GET.get("tab", "overview"), request.GET.get("part", "")
    context = context_of(request, endpoint, tab if tab in TABS else "overview")
    if tab == "scaling" or part in scaling_pages.PARTS:
        context |= scaling_pages.context_of(endpoint, context["now"])
    if tab == "traffic":
        context |= admission_form.context_of(endpoint)
    template = "endpoints/scaling.html" if part in scaling_pages.PARTS else "endpoints/detail.html"
    whole = part not in PARTS | scaling_pages.PARTS
    return render(request, template if whole else f"{template}#{part}", context)


def visible(request: HttpRequest) -> QuerySet[Endpoint]:
    return Endpoint.objects.visible_to(request.user).select_related(
        "project", "region", "serving_revision__instance_type"
    )


def context_of(request: HttpRequest, endpoint: Endpoint, tab: str) -> dict[str, Any]:
    """What the page of one endpoint shows whatever its tab."""
    newest = endpoint.latest_deployment
    revision = (newest and newest.revision) or endpoint.revisions.latest("number")
    at, speech = timezone.now(), calling.speaks(revision)
    return {
        "endpoint": endpoint,
        "here": endpoint.project,
        "tab": tab,
        "status": Status(endpoint.status),
        "busy": endpoint.status in pages.BUSY,
        "revision": revision,
        "spec": revision.wish,
        "machine": revision.instance_type,
        "made": pages.made_of(revision),
        "problems": pages.problems(endpoint, newest),
        "emergency": scaling_pages.emergency_of(endpoint, at),
        "holds": scaling_pages.holds(),
        "asked": request.GET.get("instances", endpoint.max_instances),
        "deployment": newest,
        "phases": pages.phase_rows(newest, at) if newest else [],
        "deploying": bool(newest and newest.state == DeploymentState.RUNNING),
        "took": _took(newest),
        "instances": pages.instance_rows(endpoint),
        "events": endpoint.events.select_related("actor", "actor_key")[: 100 if tab == "events" else 8],
        "revisions": endpoint.revisions.select_related("created_by", "instance_type")
        if tab == "revisions"
        else (),
        "address": pages.address_of(endpoint),
        "host": pages.host_of(endpoint),
        "speech": speech,
        "root": calling.root_of(endpoint),
        "snippets": calling.snippets(endpoint, speech),
        "may_operate": endpoint.project.allows(request.user, Right.OPERATE),
        "may_read_logs": endpoint.project.allows(request.user, Right.LOGS),
        "runs": endpoint.desired == Desired.RUNNING,
        "live_url": f"/ws/projects/{endpoint.project.slug}/endpoints/{endpoint.name}/",
        "now": at,
    }


def _took(newest: Any) -> float | None:
    if newest is None or newest.ended_at is None:
        return None
    return float((newest.ended_at - newest.started_at).total_seconds())


@require_POST
def act(request: HttpRequest, project: str, name: str, verb: str) -> HttpResponse:
    """Scale, stop, start, restart, delete or cancel, as a plain form."""
    endpoint = get_object_or_404(Endpoint.objects.visible_to(request.user), project__slug=project, name=name)
    if not endpoint.project.allows(request.user, Right.OPERATE):
        raise PermissionDenied(acts.LOOK_ONLY)
    before = endpoint.wanted
    result = acts.act(request.user, endpoint.pk, verb, request.POST.dict())  # type: ignore[arg-type]
    say = messages.success if result.ok else messages.error
    say(
        request, _with_undo(request, endpoint, before, result) if result.ok and verb == "scale" else result.message
    )
    if result.ok and verb == "delete":
        return redirect("endpoints:list", project=project)
    page = reverse("endpoints:detail", args=[project, name])
    return redirect(f"{page}?tab=scaling" if "emergency" in verb else page)


def _with_undo(request: HttpRequest, endpoint: Endpoint, before: int, result: acts.Result) -> str:
    """The message with a form that scales back."""
    context = {"endpoint": endpoint, "before": before, "text": result.message}
    return render_to_string("endpoints/undo_scale.html", context, request)
