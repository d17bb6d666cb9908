"""Costs as fragments: of one endpoint, and of a project's endpoints together."""

from __future__ import annotations

from decimal import Decimal

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_GET

from accounts.models import Project
from billing import costs, periods
from endpoints.models import Endpoint, Instance, InstanceType
from endpoints.models.deployment import InstanceState


@require_GET
def cost(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """So far this month, an hour now, the whole month, and the quantities behind it."""
    endpoint = get_object_or_404(Endpoint.objects.visible_to(request.user), project__slug=project, name=name)
    bill = costs.bill_of(endpoint, at=timezone.now())
    slugs = dict(InstanceType.objects.values_list("pk", "slug"))
    lines = [(line, slugs.get(line.instance_type_id or 0, "Requests")) for line in bill.so_far.lines]
    context = {"endpoint": endpoint, "bill": bill, "lines": lines, "zone": periods.zone().key}
    return render(request, "billing/cost.html", context)


@require_GET
def project_cost(request: HttpRequest, project: str) -> HttpResponse:
    """What runs in a project now and what its month costs, deleted endpoints' share included."""
    here = get_object_or_404(Project.objects.visible_to(request.user), slug=project)
    keys = list(Endpoint.objects.filter(project=here).values_list("pk", flat=True))
    bills = costs.bills(keys, at=timezone.now()).values()
    ready = Instance.objects.live().filter(endpoint__project=here, state=InstanceState.READY).count()
    context = {
        "project": here,
        "ready": ready,
        "per_hour": sum((bill.per_hour for bill in bills), Decimal(0)),
        "so_far": sum((bill.so_far.total for bill in bills), Decimal(0)),
        "projected": sum((bill.projected for bill in bills), Decimal(0)),
    }
    return render(request, "billing/project_cost.html", context)
