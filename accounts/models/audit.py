"""Who changed whose access, and where instances run, kept with the words it was shown in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.utils import timezone

from accounts.models.user import User

if TYPE_CHECKING:
    from accounts.models.key import ApiKey
    from accounts.models.project import Project


class AuditEntry(models.Model):
    """One act on a project's members or keys, or on the platform (no project); written in the same transaction as
    the act."""

    project = models.ForeignKey("accounts.Project", models.CASCADE, null=True, blank=True, related_name="audit")
    who = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    who_text = models.CharField(max_length=160, blank=True)  # outlives the account
    at = models.DateTimeField(default=timezone.now)
    what = models.CharField(max_length=40)  # such as member.role_changed, key.revoked
    message = models.CharField(max_length=300)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [models.Index(fields=["project", "-at"])]

    def __str__(self) -> str:
        return self.message

    @classmethod
    def write(
        cls, what: str, message: str, *, by: User | ApiKey | None, project: Project | None = None
    ) -> AuditEntry:
        return cls.objects.create(
            project=project,
            who=by if isinstance(by, User) else None,
            who_text=str(by or "")[:160],
            what=what,
            message=message[:300],
        )
