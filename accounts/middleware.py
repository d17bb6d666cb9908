"""What is done around every page: the viewer's time zone, and the way to the login from a fragment."""

import zoneinfo
from collections.abc import Callable
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.utils import timezone
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails

COOKIE = "timezone"  # written by the page from the browser's own zone


class ViewerTimezoneMiddleware:
    """Activate the account's zone, else the browser's, else UTC."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        wanted = getattr(request.user, "timezone", "") or request.COOKIES.get(COOKIE, "")
        try:
            zone = zoneinfo.ZoneInfo(wanted) if wanted else None
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):
            zone = None
        with timezone.override(zone or zoneinfo.ZoneInfo("UTC")):
            return self.get_response(request)


class LoginForFragmentsMiddleware:
    """A fragment asked for after the login expired sends the whole page to log in, and back to where it was.

    A plain redirect would be followed by the browser's fetch and put the login page into the fragment.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        htmx: HtmxDetails = request.htmx  # type: ignore[attr-defined]
        login = resolve_url(settings.LOGIN_URL)
        if not htmx or not response.headers.get("Location", "").startswith(f"{login}?"):
            return response
        page = htmx.current_url_abs_path or "/"
        return HttpResponseClientRedirect(f"{login}?{urlencode({'next': page})}")
