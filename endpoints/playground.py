"""Keys of the Try it box: each for its viewer, for a quarter of an hour."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts import access
from accounts.models import ApiKey, Project, Purpose, Scope
from accounts.people import person
from accounts.roles import Right

LIFETIME = timedelta(minutes=15)
KEPT = timedelta(days=1)  # longer than a gateway takes to report what a key did


@require_POST
@never_cache
def try_token(request: HttpRequest, project: str, name: str) -> JsonResponse:
    """{"token", "expires_in" seconds, "expires_at"}: a key that calls this project's endpoints."""
    here = access.membership(request.user, project, Right.OPERATE)
    endpoint = get_object_or_404(here.project.endpoints.living(), name=name)
    now = timezone.now()
    _sweep(here.project, at=now)
    _, secret = ApiKey.issue(
        here.project,
        name=f"Try it: {endpoint.name}",
        scopes=[Scope.INFERENCE],
        by=person(request),
        expires_at=now + LIFETIME,
        purpose=Purpose.PLAYGROUND,
    )
    expires_in = int(LIFETIME.total_seconds())
    return JsonResponse({"token": secret, "expires_in": expires_in, "expires_at": (now + LIFETIME).isoformat()})


def _sweep(project: Project, *, at: datetime) -> None:
    """Delete old ones that never called anything; those that did are billing's evidence."""
    ApiKey.objects.filter(
        project=project, purpose=Purpose.PLAYGROUND, expires_at__lt=at - KEPT, last_used_at=None, traffic=None
    ).delete()
