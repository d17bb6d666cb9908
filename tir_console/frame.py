"""What every page's frame shows: the menu of the pages that exist, and the projects to switch between."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from accounts.models import Project
from accounts.roles import Right

# label, icon, URL name, the right it takes; every entry is a page that exists
MENU = [
    ("Model Endpoints", "endpoints", "endpoints:list", Right.VIEW),
    ("Models", "models", "endpoints:models", Right.VIEW),
    ("API keys", "keys", "accounts:keys", Right.VIEW),
    ("Secrets", "secrets", "endpoints:secrets", Right.VIEW),
    ("Members", "members", "accounts:members", Right.VIEW),
]


def frame(request: HttpRequest) -> dict[str, Any]:
    """`projects`, `project` and `nav` for base.html; empty for somebody who isn't logged in."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or request.htmx:  # type: ignore[attr-defined]
        return {}
    projects = list(Project.objects.visible_to(user))
    slug = request.resolver_match.kwargs.get("project") if request.resolver_match else None
    current = next((project for project in projects if project.slug == slug), None)
    shown = current or (projects[0] if projects else None)
    return {"projects": projects, "project": current, "nav": _menu(request, shown) if shown else []}


def _menu(request: HttpRequest, project: Project) -> list[dict[str, Any]]:
    entries = []
    for label, icon, name, right in MENU:
        if not project.allows(request.user, right):
            continue
        url = reverse(name, kwargs={"project": project.slug})
        entries.append({"label": label, "icon": icon, "url": url, "current": request.path.startswith(url)})
    return entries
