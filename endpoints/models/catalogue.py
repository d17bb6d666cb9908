"""What there is to choose from: regions and instance types."""

from __future__ import annotations

from django.db import models


class RuntimeKind(models.TextChoices):
    PROCESS = "process", "Processes on this machine"
    DOCKER = "docker", "Docker"
    KUBERNETES = "kubernetes", "Kubernetes"


class Region(models.Model):
    """A place where instances run. Its capacity is what its runtime last said, with the time it said so."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=80)
    runtime = models.CharField(max_length=20, choices=RuntimeKind.choices, default=RuntimeKind.PROCESS)
    config = models.JSONField(default=dict, blank=True)
    enabled = models.BooleanField(default=True)
    capacity = models.JSONField(default=dict, editable=False)
    capacity_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def has_gpus(self) -> bool:
        return bool(self.capacity.get("gpus"))


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
