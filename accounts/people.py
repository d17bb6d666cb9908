"""Who is asking."""

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from accounts.models import User


def person(request: HttpRequest) -> User:
    """The one who is logged in; the middleware has sent everybody else to the log-in page before."""
    if not isinstance(request.user, User):
        raise PermissionDenied("Log in first.")
    return request.user
