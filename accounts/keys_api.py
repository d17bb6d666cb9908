"""The REST API of API keys: what they may call and how much. A new one is made on the console's page, where its
secret is shown once."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest
from ninja import Router
from ninja.params.functions import Query

from accounts.api_shapes import KeyOut, KeysOut, ReachIn, shown_keys
from accounts.models import ApiKey
from accounts.rest import Error, ManageKey, key_of, only

router = Router(auth=ManageKey(), tags=["API keys"])
PROBLEMS: dict[Any, Any] = {frozenset({400, 401, 403, 404, 409, 413, 422}): Error}
LARGEST_PAGE = 200
LARGEST_ID = 2**63 - 1


@router.get("/keys", response={200: KeysOut} | PROBLEMS)
def list_keys(
    request: HttpRequest,
    page: int = Query(1, ge=1, le=100_000),
    limit: int = Query(50, ge=1, le=LARGEST_PAGE),
) -> KeysOut:
    """The project's API keys, the newest first, revoked ones too. Those of service accounts are with these."""
    only(request.GET, ("page", "limit"))
    project = key_of(request).project
    found = Paginator(project.api_keys.listed().order_by("-created_at", "-pk"), limit)
    rows = list(found.page(page).object_list) if page <= found.num_pages else []
    return KeysOut(items=shown_keys(project, rows), total=found.count, page=page, pages=found.num_pages)


@router.get("/keys/{key_id}", response={200: KeyOut} | PROBLEMS)
def get_key(request: HttpRequest, key_id: int) -> KeyOut:
    return shown_keys(key_of(request).project, [_key(request, key_id)])[0]


@router.patch("/keys/{key_id}", response={200: KeyOut} | PROBLEMS)
def update_key(request: HttpRequest, key_id: int, body: ReachIn) -> KeyOut:
    """Change what it may call and how much, within two seconds; what is left out stays as it is."""
    mine, found = key_of(request), _key(request, key_id)
    found.change(body.changes(mine.project), by=mine)
    return shown_keys(mine.project, [found])[0]


def _key(request: HttpRequest, key_id: int) -> ApiKey:
    rows = key_of(request).project.api_keys.listed().select_related("project")
    found = rows.filter(pk=key_id).first() if 0 < key_id <= LARGEST_ID else None
    if found is None:
        raise Http404(f"There is no API key {key_id} in this project.")
    return found
