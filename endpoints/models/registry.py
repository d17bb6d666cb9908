"""The model registry: named models with immutable, numbered versions."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Project, User
from accounts.roles import Right


class RegisteredModelQuerySet(models.QuerySet["RegisteredModel"]):
    def usable_in(self, project: Project) -> RegisteredModelQuerySet:
        """The project's own and those that every project shares."""
        return self.filter(Q(project=project) | Q(project=None))

    def visible_to(self, user: Any) -> RegisteredModelQuerySet:
        return self.filter(Q(project=None) | Q(project__in=Project.objects.where(user, Right.VIEW)))


class RegisteredModel(models.Model):
    """A model by name; without a project it is shared by all."""

    project = models.ForeignKey(Project, models.CASCADE, null=True, blank=True, related_name="models")
    name = models.SlugField(max_length=80)
    title = models.CharField(max_length=120, blank=True)
    description = models.TextField(blank=True)
    license = models.CharField(max_length=80, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = RegisteredModelQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="model_name_once", nulls_distinct=False)
        ]

    def __str__(self) -> str:
        return self.title or self.name


class ModelVersion(models.Model):
    """One immutable version: its files with size and digest, and what their header says."""

    model = models.ForeignKey(RegisteredModel, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    path = models.CharField(max_length=500)  # of the main file, relative to the data folder
    files = models.JSONField()  # [{"path", "size", "sha256"}]
    size_bytes = models.BigIntegerField()
    facts = models.JSONField(default=dict)  # GGUFFacts.to_dict()
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["model", "number"], name="model_version_once")]

    def __str__(self) -> str:
        return f"{self.model.name} v{self.number}"
