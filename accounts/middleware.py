"""Times are shown in the viewer's zone."""

import zoneinfo
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

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
