"""What there is to choose from: regions and instance types."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import models, transaction
from django.db.models import Count, Q

from accounts.models import AuditEntry, User
from accounts.refused import Refused

SILENCE = timedelta(seconds=1)


class RuntimeKind(models.TextChoices):
    PROCESS = "process", "Processes on this machine"
    DOCKER = "docker", "Docker"
    KUBERNETES = "kubernetes", "Kubernetes"


class RegionQuerySet(models.QuerySet["Region"]):
    def counted(self) -> RegionQuerySet:
        """With `living`, how many endpoints that aren't deleted belong to each."""
        return self.annotate(living=Count("endpoints", filter=Q(endpoints__deleted_at=None)))


class Region(models.Model):
    """A place where instances run. Its capacity is what its runtime last said, with the time it said so; its
    problem is why the last try to ask it failed, "" if it didn't."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=80)
    runtime = models.CharField(max_length=20, choices=RuntimeKind.choices, default=RuntimeKind.PROCESS)
    config = models.JSONField(default=dict, blank=True)
    enabled = models.BooleanField(default=True)
    capacity = models.JSONField(default=dict, editable=False)
    capacity_at = models.DateTimeField(null=True, editable=False)
    problem = models.TextField(blank=True, editable=False)
    problem_at = models.DateTimeField(null=True, editable=False)
    asked_at = models.DateTimeField(null=True, editable=False)  # when somebody last wanted to know
    cached = models.JSONField(default=dict, editable=False)  # its cache of models, as last seen

    objects = RegionQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def has_gpus(self) -> bool:
        return bool(self.capacity.get("gpus"))

    @property
    def cpus(self) -> tuple[float, float] | None:
        """Free and all, as last said; None where it can't say."""
        every = self.capacity.get("cpu_millis")
        return None if every is None else (self.capacity.get("cpu_millis_free", 0) / 1000, every / 1000)

    @property
    def waiting(self) -> bool:
        """Whether somebody asked for a look that hasn't answered yet."""
        answers = [at for at in (self.capacity_at, self.problem_at) if at]
        return self.asked_at is not None and max(answers, default=self.asked_at - SILENCE) < self.asked_at

    def measured(self, capacity: dict[str, Any], *, at: datetime) -> None:
        """It could be asked, and said this."""
        values = {"capacity": capacity, "capacity_at": at, "problem": "", "problem_at": None}
        Region.objects.filter(pk=self.pk).update(**values)

    @property
    def cache(self) -> dict[str, Any] | None:
        """How full its cache of models was when it was last seen; None if it has none, or nobody saw it yet."""
        seen = self.cached if self.cached.get("name") == (self.config.get("cache") or None) else {}
        return {**seen, "at": datetime.fromisoformat(seen["at"])} if seen else None

    def saw_cache(self, seen: dict[str, Any]) -> None:
        """How full its cache of models was at a moment. What was seen stays when who saw it goes."""
        if seen != self.cached:
            Region.objects.filter(pk=self.pk).update(cached=seen)

    def unreached(self, problem: str, *, at: datetime) -> None:
        """It couldn't be asked. What it said before stays, with its time."""
        Region.objects.filter(pk=self.pk).update(problem=problem, problem_at=at)

    def refuse_another_runtime(self) -> None:
        """Raises Refused while endpoints would lose what runs for them."""
        if names := self._living():
            raise Refused(f"It can't become another kind of place while {_some(names)} run here.", field="runtime")

    def refuse_another_place(self, field: str) -> None:
        """Raises Refused while what runs for endpoints would be left behind, where nobody sees it any more."""
        if names := self._living():
            said = f"It can't change while {_some(names)} run here: what runs for them would be left behind."
            raise Refused(said, field=field)

    @transaction.atomic
    def discard(self, *, by: User) -> None:
        """Delete it for good, with an audit entry. Raises Refused while endpoints run here, or once any did."""
        Region.objects.select_for_update().get(pk=self.pk)
        if names := self._living():
            raise Refused(f"“{self.name}” is used by {_some(names)}. Delete them first.", code="in_use")
        if self.endpoints.exists():
            raise Refused(
                f"Endpoints that are deleted now ran in “{self.name}”, and their costs name it. "
                "Take it out of the choice instead.",
                code="in_use",
            )
        AuditEntry.write("region.deleted", f"Deleted the region “{self.slug}”.", by=by)
        self.delete()

    def _living(self) -> list[str]:
        return list(self.endpoints.filter(deleted_at=None).order_by("name").values_list("name", flat=True))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


class Family(models.TextChoices):
    CPU = "cpu", "CPU-optimized"
    GPU = "gpu", "GPU-accelerated"


class InstanceType(models.Model):
    """A size of machine. Its price stands in billing, with the day it holds from."""

    slug = models.CharField(max_length=40, unique=True)
    family = models.CharField(max_length=4, choices=Family.choices)
    vcpus = models.PositiveSmallIntegerField()
    memory_bytes = models.BigIntegerField()
    network = models.CharField(max_length=40, blank=True)
    gpu = models.CharField(max_length=40, blank=True)
    gpu_count = models.PositiveSmallIntegerField(default=0)
    gpu_memory_bytes = models.BigIntegerField(default=0)
    compute_capability = models.DecimalField(max_digits=3, decimal_places=1, null=True, blank=True)
    best_for = models.CharField(max_length=80, blank=True)
    position = models.PositiveSmallIntegerField(default=0)
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["position", "slug"]
        constraints = [
            models.CheckConstraint(condition=models.Q(vcpus__gt=0), name="instance_type_vcpus_positive"),
            models.CheckConstraint(condition=models.Q(memory_bytes__gt=0), name="instance_type_memory_positive"),
        ]

    def __str__(self) -> str:
        return self.slug

    @property
    def has_gpu(self) -> bool:
        return self.gpu_count > 0
