"""Log-in links that work once, for a quarter of an hour.

A link is spent by a POST, because mail scanners and chat previews GET every link they see. It names the
moment of the last log-in and the password it was made for, so that logging in by any way, or changing the
password, spends all that are out.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.core import signing
from django.utils.crypto import salted_hmac

from accounts.models import User

LIFETIME = timedelta(minutes=15)
SALT = "accounts.login-link"


def make(user: User) -> str:
    """A token for `/login/link/<token>/`."""
    return signing.dumps([user.pk, _mark(user)], salt=SALT)


def look(token: str) -> User | None:
    """Whose link this is, if it still works; spends nothing."""
    try:
        pk, mark = signing.loads(token, salt=SALT, max_age=LIFETIME)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    user = User.objects.filter(pk=pk, is_active=True).first()
    return user if user is not None and _mark(user) == mark else None


def spend(token: str, *, at: datetime) -> User | None:
    """The person to log in; None for whoever comes second, even in the same instant."""
    user = look(token)
    if user is None:
        return None
    won = User.objects.filter(pk=user.pk, last_login=user.last_login).update(last_login=at)
    if not won:
        return None
    return user


def _mark(user: User) -> str:
    seen = user.last_login.isoformat() if user.last_login else "never"
    return salted_hmac(SALT, f"{seen} {user.password}").hexdigest()[:24]
