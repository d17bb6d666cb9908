"""The public keys of signed tokens, for whoever wants to check one."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from accounts.models import SigningKey

CACHED = 300  # seconds; a new key is published longer than that before it signs


@login_not_required
@require_safe
@cache_control(public=True, max_age=CACHED)
def jwks(request: HttpRequest) -> JsonResponse:
    """A JSON Web Key Set (RFC 7517); empty before the first token."""
    keys = [key.as_jwk() for key in SigningKey.objects.published(timezone.now())]
    return JsonResponse({"keys": keys}, content_type="application/jwk-set+json")
