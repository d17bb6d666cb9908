"""Secrets: written, used, never shown again."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

from accounts.models import Project, User
from accounts.roles import Right


class Undecryptable(Exception):
    """None of the encryption keys opens this secret; store it again."""


def _box() -> MultiFernet:
    keys: list[str] = list(settings.ENCRYPTION_KEYS)
    if not keys:
        derived = hashlib.sha256(b"secrets:" + settings.SECRET_KEY.encode()).digest()
        keys = [base64.urlsafe_b64encode(derived).decode()]
    return MultiFernet([Fernet(key) for key in keys])


class SecretQuerySet(models.QuerySet["Secret"]):
    def visible_to(self, user: Any) -> SecretQuerySet:
        return self.filter(project__in=Project.objects.where(user, Right.VIEW))

    def editable_by(self, user: Any) -> SecretQuerySet:
        return self.filter(project__in=Project.objects.where(user, Right.OPERATE))


class Secret(models.Model):
    """A named value that instances and downloads may use. Revisions hold its name, never its value."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="secrets")
    name = models.CharField(
        max_length=80,
        validators=[
            RegexValidator(
                r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
                "Use small letters, digits and hyphens, beginning and ending with a letter or digit.",
            )
        ],
    )
    ciphertext = models.BinaryField(editable=False)
    description = models.CharField(max_length=200, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = SecretQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="secret_name_once")]

    def __str__(self) -> str:
        return self.name

    def put(self, value: str) -> None:
        """Replace the value; the caller saves."""
        self.ciphertext = _box().encrypt(value.encode())
        self.updated_at = timezone.now()

    def reveal(self) -> str:
        """The value, for the process that needs it. Raises Undecryptable."""
        try:
            return _box().decrypt(bytes(self.ciphertext)).decode()
        except InvalidToken:
            raise Undecryptable(f"The secret “{self.name}” can't be decrypted. Store its value again.") from None
