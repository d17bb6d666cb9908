"""What happens whenever somebody comes in, by whichever door."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme

from accounts import signup
from accounts.models import Invitation, User

BACKEND = "django.contrib.auth.backends.ModelBackend"


def come_in(request: HttpRequest, user: User) -> None:
    """Begin the session, take what invitations wait, and see that there is a project to work in."""
    new = user.last_login is None
    login(request, user, backend=BACKEND)
    for membership in Invitation.claim_all(user, at=timezone.now()):
        messages.success(request, f"You joined {membership.project} as {membership.get_role_display().lower()}.")
    if new:
        signup.furnish(user)


def onward(request: HttpRequest) -> HttpResponse:
    """To `next` if it is a place of ours, else home."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    ours = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return HttpResponseRedirect(wanted if ours else resolve_url(settings.LOGIN_REDIRECT_URL))
