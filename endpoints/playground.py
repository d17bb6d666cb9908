"""Tokens of the Try it box: each for its viewer and this endpoint, for a quarter of an hour."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts import access, tokens
from accounts.people import person
from accounts.roles import Right


@require_POST
@never_cache
def try_token(request: HttpRequest, project: str, name: str) -> JsonResponse:
    """{"token", "expires_in" seconds, "expires_at"}: a signed token that calls this endpoint as its viewer."""
    here = access.membership(request.user, project, Right.OPERATE)
    endpoint = get_object_or_404(here.project.endpoints.living(), name=name)
    issued = tokens.for_person(person(request), here.project, at=timezone.now(), endpoint_ids=[endpoint.pk])
    expires_at = issued.expires_at.isoformat()
    return JsonResponse({"token": issued.token, "expires_in": issued.lives, "expires_at": expires_at})
