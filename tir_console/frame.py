"""What every page's frame shows: the menu of the pages that exist, and the projects to switch between."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from accounts.models import Membership
from accounts.roles import RIGHTS, Right

# label, icon, URL name, the right it takes; every entry is a page that exists
MENU = [
    ("Model Endpoints", "endpoints", "endpoints:list", Right.VIEW),
    ("Models", "models", "endpoints:models", Right.VIEW),
    ("Async requests", "clock", "jobs:list", Right.VIEW),
    ("API keys", "keys", "accounts:keys", Right.VIEW),
    ("Service accounts", "shield", "accounts:services", Right.VIEW),
    ("Secrets", "secrets", "endpoints:secrets", Right.VIEW),
    ("Members", "members", "accounts:members", Right.VIEW),
]


LAST = "project"  # the session's last visited project


def frame(request: HttpRequest) -> dict[str, Any]:
    """`projects`, `project`, `nav` and `person_menu` for base.html; empty for somebody who isn't logged in."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or request.htmx:  # type: ignore[attr-defined]
        return {}
    held = list(user.memberships.select_related("project").order_by("project__name"))
    slug = request.resolver_match.kwargs.get("project") if request.resolver_match else None
    here = next((found for found in held if found.project.slug == slug), None)
    if here and request.session.get(LAST) != slug:
        request.session[LAST] = slug
    shown = here or next((found for found in held if found.project.slug == request.session.get(LAST)), None)
    shown = shown or next(iter(held), None)
    return {
        "projects": [found.project for found in held],
        "project": shown.project if shown else None,
        "nav": _menu(request, shown) if shown else [],
        "person_menu": _person_menu(user.is_staff),
    }


def _menu(request: HttpRequest, shown: Membership) -> list[dict[str, Any]]:
    entries = []
    for label, icon, name, right in MENU:
        if shown.role in RIGHTS[right]:
            url = reverse(name, kwargs={"project": shown.project.slug})
            entries.append({"label": label, "icon": icon, "url": url, "current": request.path.startswith(url)})
    return entries


def _person_menu(staff: bool) -> list[dict[str, Any]]:
    entries = [
        {"label": "Your account", "icon": "user", "url": reverse("accounts:account")},
        {"label": "REST API", "icon": "terminal", "url": reverse("api:openapi-view")},
    ]
    if staff:
        entries.append({"label": "Regions", "icon": "settings", "url": reverse("endpoints:regions")})
        entries.append({"label": "Administration", "icon": "shield", "url": reverse("admin:index")})
    return entries
