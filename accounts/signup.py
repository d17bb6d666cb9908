"""Coming in for the first time.

Whether an address has an account already is never told. With a mail server, both get “look into your mail”,
and an account works once its mailed link was followed by somebody who knows the password that was chosen (so
that nobody can prepare an account in another's name). Without one, both are led to the log-in page: a new
account works at once, an existing one is left as it was.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.core import signing
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils.crypto import salted_hmac

from accounts import mail
from accounts.models import Project, User
from accounts.roles import Role

LIFETIME = timedelta(days=1)
SALT = "accounts.sign-up"


def ask(email: str, name: str, password: str) -> None:
    """Take a sign-up. Costs the same for a known and an unknown address, up to one row."""
    hashed = make_password(password)
    user = User.objects.filter(email=email).first()
    if user is None:
        user = _create(email, name, hashed)
    elif _unfinished(user):
        user.name, user.password = name, hashed
        user.save(update_fields=["name", "password"])
    if not mail.configured():
        return
    if _unfinished(user):
        link = settings.CONSOLE_URL + reverse("accounts:confirm", args=[_token(user)])
        mail.post(email, "Finish signing up", f"Open this link within a day and enter your password:\n\n{link}\n")
    else:
        link = settings.CONSOLE_URL + reverse("accounts:reset")
        mail.post(
            email,
            "You have an account already",
            f"Somebody, perhaps you, signed up with this address. Your account is unchanged.\n\n"
            f"Forgot the password? {link}\n",
        )


def look(token: str) -> User | None:
    """Whose sign-up a mailed link finishes; None if it is forged, old or done."""
    try:
        pk, mark = signing.loads(token, salt=SALT, max_age=LIFETIME)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    user = User.objects.filter(pk=pk).first()
    return user if user is not None and _unfinished(user) and _mark(user) == mark else None


def finish(user: User, *, at: datetime) -> bool:
    """The link was followed and the password known. True if this call did it."""
    won = User.objects.filter(pk=user.pk, is_active=False, email_confirmed_at=None, password=user.password)
    if not won.update(is_active=True, email_confirmed_at=at):
        return False
    user.is_active, user.email_confirmed_at = True, at
    return True


def furnish(user: User) -> None:
    """A person who comes in for the first time and owns nothing gets a project of their own."""
    if not user.memberships.filter(role=Role.OWNER).exists():
        Project.start(f"{user.name or user.email.partition('@')[0]}'s project", owner=user)


def _create(email: str, name: str, hashed: str) -> User:
    user = User(email=email, name=name, password=hashed, is_active=not mail.configured())
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError:  # two sign-ups in the same instant: the first one has it
        return User.objects.get(email=email)
    return user


def _unfinished(user: User) -> bool:
    """Signed up by mail, never confirmed; somebody who was shut out by an admin has logged in before."""
    return not user.is_active and user.email_confirmed_at is None and user.last_login is None


def _token(user: User) -> str:
    return signing.dumps([user.pk, _mark(user)], salt=SALT)


def _mark(user: User) -> str:
    return salted_hmac(SALT, user.password).hexdigest()[:24]
