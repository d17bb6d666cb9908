"""A wizard's draft, kept on the server so that nothing a person typed is lost."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from django.utils import timezone

from accounts.models import Project, User
from accounts.roles import Right


class DraftQuerySet(models.QuerySet["Draft"]):
    def editable_by(self, user: Any) -> DraftQuerySet:
        return self.filter(user=user, project__in=Project.objects.where(user, Right.OPERATE))


class Draft(models.Model):
    """Answers per step as typed; `reached` is the furthest step seen; deployed once at most."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="drafts")
    user = models.ForeignKey(User, models.CASCADE, related_name="drafts")
    answers = models.JSONField(default=dict)  # step -> {field: value}
    dropped = models.JSONField(default=dict)  # what a change made invalid, kept for undo: step -> {field: value}
    found = models.JSONField(default=dict)  # what the last good Test Connection saw
    image = models.JSONField(default=dict)  # what the last good check of a custom container's image saw
    reached = models.PositiveSmallIntegerField(default=0)
    endpoint = models.OneToOneField("Endpoint", models.SET_NULL, null=True, blank=True, related_name="draft")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = DraftQuerySet.as_manager()

    class Meta:
        ordering = ["-updated_at"]

    def __str__(self) -> str:
        return str(self.answers.get("basics", {}).get("name") or "Unnamed draft")
