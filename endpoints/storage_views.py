"""The page that shows how full the store is and what lies there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from accounts import access
from accounts.models import Project
from accounts.roles import Right
from endpoints import tidying
from endpoints.models import ModelVersion, RegisteredModel, Revision, VersionDraft
from endpoints.models.registry import store
from endpoints.sources import cache

STAYS, USED, IDLE = "Version of the registry", "In use", "Not in use"


@dataclass(frozen=True)
class Row:
    """A unit of the store that this project may know of."""

    label: str
    url_name: str
    url_number: int
    state: str
    size: int
    used_at: datetime


def storage(request: HttpRequest, project: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.VIEW)
    seen, used = cache.survey(store()), tidying.in_use()
    known = _known(here.project)
    rows = [
        Row(*known[unit.path], _state(unit, used), unit.size, datetime.fromtimestamp(unit.used_at, UTC))
        for unit in seen.units
        if unit.path in known
    ]
    others = [unit for unit in seen.units if unit.path not in known]
    context = {
        "here": here,
        "seen": seen,
        "limit": settings.STORE_MAX_BYTES,
        "rows": sorted(rows, key=lambda row: row.size, reverse=True),
        "others": len(others),
        "other_bytes": sum(unit.size for unit in others),
        "idle_bytes": sum(unit.size for unit in seen.units if unit.evictable and unit.path not in used),
    }
    return render(request, "endpoints/storage.html", context)


def _known(project: Project) -> dict[str, tuple[str, str, int]]:
    """Units by path, with what this project calls them: a label, and its page's model and version."""
    found: dict[str, tuple[str, str, int]] = {}
    revisions = Revision.objects.filter(endpoint__project=project).exclude(model_path="").order_by("pk")
    for revision in revisions.select_related("endpoint"):
        if unit := cache.unit_of(store(), Path(revision.model_path)):
            source = revision.wish.source
            found[unit] = (source.model_id or source.url or source.bucket or source.model or str(revision), "", 0)
    for draft in VersionDraft.objects.filter(model__project=project).select_related("model"):
        found[f"registry/{draft.pk}"] = (f"{draft.model.name}, being made", draft.model.name, 0)
    versions = ModelVersion.objects.filter(model__in=RegisteredModel.objects.usable_in(project))
    for version in versions.select_related("model"):
        if unit := cache.unit_of(store(), version.folder / "x"):
            found[unit] = (str(version), version.model.name, version.number)
    return found


def _state(unit: cache.Unit, used: set[str]) -> str:
    if unit.path in used:
        return USED
    return IDLE if unit.evictable else STAYS
