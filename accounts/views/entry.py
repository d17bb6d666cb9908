"""Pages of the doors: log in, sign up, one-time links, forgotten passwords."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm, SetPasswordForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from accounts import links, mail, recovery, signup, throttle
from accounts.entry import come_in, onward
from accounts.forms.entry import ConfirmForm, EmailForm, LogInForm, SignUpForm

form_page = require_http_methods(["GET", "HEAD", "POST"])


class LogIn(auth.LoginView):
    form_class = LogInForm
    template_name = "accounts/login.html"
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        come_in(self.request, form.get_user())
        return onward(self.request)

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        return self.render_to_response(self.get_context_data(form=form), status=422)

    def get_context_data(self, **more: Any) -> dict[str, Any]:
        return super().get_context_data(sign_up_open=settings.SIGN_UP_OPEN, mail=mail.configured(), **more)


def locked_out(request: HttpRequest, credentials: dict[str, str], *args: object, **kwargs: object) -> HttpResponse:
    """After too many wrong passwords for one name from one address."""
    return render(request, "accounts/locked_out.html", {"minutes": _minutes()}, status=429)


@login_not_required
@sensitive_post_parameters("password")
@never_cache
@form_page
def sign_up(request: HttpRequest) -> HttpResponse:
    if not settings.SIGN_UP_OPEN:
        return render(request, "accounts/sign_up_closed.html", status=403)
    form = SignUpForm(request.POST or None)
    if not form.is_valid():
        return render(request, "accounts/sign_up.html", {"form": form}, status=422 if form.is_bound else 200)
    if not throttle.allows(request, "sign-up", limit=20, seconds=3600):
        return render(request, "accounts/too_often.html", status=429)
    signup.ask(form.cleaned_data["email"], form.cleaned_data["name"], form.cleaned_data["password"])
    return redirect("accounts:signed_up")


@login_not_required
def signed_up(request: HttpRequest) -> HttpResponse:
    return render(request, "accounts/signed_up.html", {"mail": mail.configured()})


@login_not_required
@sensitive_post_parameters("password")
@never_cache
@form_page
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    user = signup.look(token)
    if user is None:
        return render(request, "accounts/link_dead.html", {"what": "sign-up"}, status=410)
    form = ConfirmForm(request.POST or None, user=user)
    if not throttle.allows(request, "confirm", limit=60, seconds=3600):
        return render(request, "accounts/too_often.html", status=429)
    if form.is_valid() and signup.finish(user, at=timezone.now()):
        come_in(request, user)
        return redirect("home")
    page = {"form": form, "person": user}
    return render(request, "accounts/confirm.html", page, status=422 if form.is_bound else 200)


@login_not_required
@never_cache
@form_page
def link(request: HttpRequest, token: str) -> HttpResponse:
    user = links.spend(token, at=timezone.now()) if request.method == "POST" else links.look(token)
    if user is None:
        return render(request, "accounts/link_dead.html", {"what": "log-in"}, status=410)
    if request.method != "POST":
        return render(request, "accounts/link.html", {"person": user, "next": request.GET.get("next", "")})
    come_in(request, user)
    return onward(request)


@login_not_required
@never_cache
@form_page
def reset(request: HttpRequest) -> HttpResponse:
    if not mail.configured():
        return render(request, "accounts/reset_without_mail.html")
    form = EmailForm(request.POST or None)
    if not form.is_valid():
        return render(request, "accounts/reset.html", {"form": form}, status=422 if form.is_bound else 200)
    if not throttle.allows(request, "reset", limit=20, seconds=3600):
        return render(request, "accounts/too_often.html", status=429)
    recovery.offer(form.cleaned_data["email"])
    return redirect("accounts:reset_sent")


@login_not_required
def reset_sent(request: HttpRequest) -> HttpResponse:
    return render(request, "accounts/reset_sent.html")


@method_decorator(login_not_required, name="dispatch")
class ResetConfirm(auth.PasswordResetConfirmView):
    """Keeps the token out of the address bar, so that no other site is told it as the page one came from."""

    template_name = "accounts/reset_confirm.html"
    success_url = reverse_lazy("accounts:login")

    def form_valid(self, form: SetPasswordForm[Any]) -> HttpResponse:
        answer = super().form_valid(form)
        recovery.confirmed(form.user)
        messages.success(self.request, "Your password was changed. Log in with it.")
        return answer

    def form_invalid(self, form: SetPasswordForm[Any]) -> HttpResponse:
        return self.render_to_response(self.get_context_data(form=form), status=422)


def _minutes() -> int:
    return round(settings.AXES_COOLOFF_TIME * 60)
