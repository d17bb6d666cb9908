"""Pages of people and projects."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def locked_out(request: HttpRequest, credentials: dict[str, str], *args: object, **kwargs: object) -> HttpResponse:
    """After too many wrong passwords for one name from one address."""
    return render(request, "accounts/locked_out.html", status=429)
