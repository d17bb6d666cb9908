"""Every transition and every act of a person, in one table: timeline, audit and support."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils import timezone

from accounts.models import ApiKey, Project, User


class Severity(models.TextChoices):
    INFO = "info", "Info"
    OK = "ok", "Done"
    WARN = "warn", "Warning"
    BAD = "bad", "Failure"


class Event(models.Model):
    """Who did or saw what, when, and why. `before` and `after` are the states or values it moved between."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="events")
    endpoint = models.ForeignKey("Endpoint", models.CASCADE, null=True, blank=True, related_name="events")
    instance = models.CharField(max_length=120, blank=True)
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=40)  # such as endpoint.scaled, instance.failed, phase.ended
    severity = models.CharField(max_length=4, choices=Severity.choices, default=Severity.INFO)
    actor = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    actor_key = models.ForeignKey(ApiKey, models.SET_NULL, null=True, blank=True, related_name="+")
    reason = models.CharField(max_length=60, blank=True)
    message = models.TextField(blank=True)
    before = models.CharField(max_length=60, blank=True)
    after = models.CharField(max_length=60, blank=True)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [
            models.Index(fields=["endpoint", "-at"]),
            models.Index(fields=["project", "-at"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.message}"

    @property
    def who(self) -> str:
        if self.actor_key:
            return f"key {self.actor_key.name}"
        return str(self.actor) if self.actor else "Controller"


def actor_fields(by: User | ApiKey | None) -> dict[str, Any]:
    """The columns that name who acted: a person, a program's key, or the controller (None)."""
    if isinstance(by, ApiKey):
        return {"actor": by.created_by, "actor_key": by}
    return {"actor": by, "actor_key": None}
