"""The search box: endpoints, models, keys and pages of one project, while somebody types."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from accounts import access
from accounts.models import Membership
from accounts.roles import RIGHTS, Right
from endpoints.models import Endpoint, RegisteredModel
from endpoints.status import Status
from tir_console.frame import MENU

MOST = 6  # of each kind
LONGEST = 80  # characters of a query that are looked at


@dataclass(frozen=True)
class Hit:
    label: str
    url: str
    icon: str
    note: str = ""


def search(request: HttpRequest, project: str) -> HttpResponse:
    """What matches `q`: the panel beneath the box for a page that types, a page for everybody else."""
    here = access.membership(request.user, project, Right.VIEW)
    wanted = request.GET.get("q", "").replace("\0", "").strip()[:LONGEST]
    groups = [(title, hits) for title, hits in found(here, wanted) if hits] if wanted else []
    template = "pieces/search_results.html" if request.htmx else "search.html"  # type: ignore[attr-defined]
    return render(request, template, {"here": here, "wanted": wanted, "groups": groups})


def found(here: Membership, wanted: str) -> list[tuple[str, list[Hit]]]:
    """The hits by kind, the kinds in the order of how often they are looked for."""
    return [
        ("Endpoints", _endpoints(here, wanted)),
        ("Models", _models(here, wanted)),
        ("API keys", _keys(here, wanted)),
        ("Service accounts", _accounts(here, wanted)),
        ("Pages", _pages(here, wanted)),
    ]


def _endpoints(here: Membership, wanted: str) -> list[Hit]:
    rows = Endpoint.objects.living().filter(project=here.project, name__icontains=wanted).order_by("name")[:MOST]
    return [
        Hit(
            row.name,
            reverse("endpoints:detail", kwargs={"project": here.project.slug, "name": row.name}),
            "endpoints",
            Status(row.status).label,
        )
        for row in rows
    ]


def _models(here: Membership, wanted: str) -> list[Hit]:
    like = Q(name__icontains=wanted) | Q(title__icontains=wanted)
    rows = RegisteredModel.objects.usable_in(here.project).filter(like).order_by("name")[:MOST]
    url = "endpoints:model"
    return [
        Hit(row.name, reverse(url, kwargs={"project": here.project.slug, "name": row.name}), "models", row.title)
        for row in rows
    ]


def _keys(here: Membership, wanted: str) -> list[Hit]:
    like = Q(name__icontains=wanted) | Q(prefix__icontains=wanted)
    rows = here.project.api_keys.listed().filter(like).order_by("name")[:MOST]
    url = reverse("accounts:keys", kwargs={"project": here.project.slug})
    return [Hit(row.name, f"{url}#key-{row.pk}", "keys", row.prefix) for row in rows]


def _accounts(here: Membership, wanted: str) -> list[Hit]:
    """By name and description, and by the prefix of a credential that somebody found in a log."""
    own = Q(name__icontains=wanted) | Q(description__icontains=wanted)
    like = own | Q(credentials__prefix__icontains=wanted)
    rows = here.project.service_accounts.filter(like).distinct().order_by("name")[:MOST]
    return [
        Hit(
            row.name,
            reverse("accounts:service", kwargs={"project": here.project.slug, "pk": row.pk}),
            "shield",
            row.description,
        )
        for row in rows
    ]


def _pages(here: Membership, wanted: str) -> list[Hit]:
    return [
        Hit(label, reverse(name, kwargs={"project": here.project.slug}), icon)
        for label, icon, name, right in MENU
        if here.role in RIGHTS[right] and wanted.lower() in label.lower()
    ]
