"""Forgotten passwords: a mailed link, the same answer for an address that nobody has."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.tokens import default_token_generator
from django.urls import reverse
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from accounts import mail
from accounts.models import User


def offer(email: str) -> None:
    """Mail a link if an active account has this address. The work up to the posting is the same if none has."""
    user = User.objects.filter(email=email, is_active=True).first()
    link = _link(user or User(pk=0, email=email, password=""))
    body = f"Open this link to choose a new password. It works once, for three days:\n\n{link}\n"
    if user is not None:
        mail.post(email, "Choose a new password", body)


def confirmed(user: Any) -> None:
    """Whoever followed the link has shown that the address is theirs."""
    User.objects.filter(pk=user.pk, email_confirmed_at=None).update(email_confirmed_at=timezone.now())


def _link(user: User) -> str:
    place = urlsafe_base64_encode(force_bytes(user.pk))
    token = default_token_generator.make_token(user)
    return settings.CONSOLE_URL + reverse("accounts:reset_confirm", args=[place, token])
