"""A person's own page."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from accounts.forms.account import PasswordForm, ProfileForm
from accounts.middleware import COOKIE
from accounts.models import User
from accounts.people import person


def account(request: HttpRequest) -> HttpResponse:
    form = ProfileForm(request.POST or None, instance=User.objects.get(pk=person(request).pk))
    if form.is_valid():
        form.save()
        messages.success(request, "Saved.")
        return redirect("accounts:account")
    return _page(request, profile=form, bad=form.is_bound)


@sensitive_post_parameters()
@require_POST
def change_password(request: HttpRequest) -> HttpResponse:
    form = PasswordForm(person(request), request.POST)
    if not form.is_valid():
        return _page(request, password=form, bad=True)
    update_session_auth_hash(request, form.save())
    messages.success(request, "Your password was changed. You are logged out everywhere else.")
    return redirect("accounts:account")


def _page(
    request: HttpRequest,
    *,
    profile: ProfileForm | None = None,
    password: PasswordForm | None = None,
    bad: bool = False,
) -> HttpResponse:
    user = person(request)
    return render(
        request,
        "accounts/account.html",
        {
            "profile": profile or ProfileForm(instance=User.objects.get(pk=user.pk)),
            "password": password or PasswordForm(user),
            "browser_zone": request.COOKIES.get(COOKIE, ""),
            "memberships": user.memberships.select_related("project").order_by("project__name"),
        },
        status=422 if bad else 200,
    )
