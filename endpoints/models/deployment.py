"""One attempt to make a revision serve, and the instances that run for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import ApiKey, User


class DeploymentState(models.TextChoices):
    """running → succeeded | failed | cancelled"""

    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class PhaseKind(models.TextChoices):
    """The six phases, in their order."""

    VALIDATION = "validation", "Validation"
    BUILD = "build", "Container build"
    ALLOCATION = "allocation", "Resource allocation"
    LOADING = "loading", "Model loading"
    HEALTH = "health", "Health check"
    READY = "ready", "Ready"

    @property
    def deadline(self) -> timedelta:
        """How long it may take. Loading gets more for a large model: see `endpoints.planner.limits`."""
        return DEADLINES[self]

    @property
    def doing(self) -> str:
        """What is said while it is under way."""
        return DOING[self]


DEADLINES = {
    PhaseKind.VALIDATION: timedelta(seconds=120),
    PhaseKind.BUILD: timedelta(minutes=30),
    PhaseKind.ALLOCATION: timedelta(minutes=3),
    PhaseKind.LOADING: timedelta(minutes=10),
    PhaseKind.HEALTH: timedelta(seconds=120),
    PhaseKind.READY: timedelta(minutes=20),
}
DOING = {
    PhaseKind.VALIDATION: "Validating configuration…",
    PhaseKind.BUILD: "Building container…",
    PhaseKind.ALLOCATION: "Allocating resources…",
    PhaseKind.LOADING: "Loading model…",
    PhaseKind.HEALTH: "Running health checks…",
    PhaseKind.READY: "Bringing all instances into service…",
}
MESSAGE_LEASE = timedelta(seconds=5)  # how long a message to a slow worker may be on its way


class PhaseState(models.TextChoices):
    """waiting → running → done | failed | cancelled"""

    WAITING = "waiting", "Waiting"
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class InstanceState(models.TextChoices):
    """starting → loading → ready ⇄ unready → draining → stopped; any → failed(reason)"""

    STARTING = "starting", "Starting"
    LOADING = "loading", "Loading"
    READY = "ready", "Ready"
    UNREADY = "unready", "Not ready"
    DRAINING = "draining", "Draining"
    STOPPED = "stopped", "Stopped"
    FAILED = "failed", "Failed"


ENDED = (InstanceState.STOPPED, InstanceState.FAILED)
UNDER_WAY = (InstanceState.STARTING, InstanceState.LOADING)


class Deployment(models.Model):
    endpoint = models.ForeignKey("Endpoint", models.CASCADE, related_name="deployments")
    revision = models.ForeignKey("Revision", models.PROTECT, related_name="deployments")
    state = models.CharField(max_length=10, choices=DeploymentState.choices, default=DeploymentState.RUNNING)
    cause = models.CharField(max_length=20, default="deploy")  # deploy, start, restart
    reason = models.CharField(max_length=60, blank=True)
    message = models.TextField(blank=True)
    log_tail = models.TextField(blank=True)  # the last lines of the instance that failed it
    started_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_by_key = models.ForeignKey(ApiKey, models.SET_NULL, null=True, related_name="+")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint"],
                condition=Q(state=DeploymentState.RUNNING),
                name="deployment_one_unfinished",
            )
        ]

    def __str__(self) -> str:
        return f"Deployment {self.pk} of {self.revision}"

    @property
    def finished(self) -> bool:
        return self.state != DeploymentState.RUNNING


class Phase(models.Model):
    """One of a deployment's six phases. A slow step's worker holds `lease_until` while it works on it."""

    deployment = models.ForeignKey(Deployment, models.CASCADE, related_name="phases")
    kind = models.CharField(max_length=12, choices=PhaseKind.choices)
    position = models.PositiveSmallIntegerField()
    state = models.CharField(max_length=10, choices=PhaseState.choices, default=PhaseState.WAITING)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    deadline = models.DateTimeField(null=True)
    reason = models.CharField(max_length=60, blank=True)
    message = models.TextField(blank=True)
    bytes_done = models.BigIntegerField(null=True)
    bytes_total = models.BigIntegerField(null=True)
    lease_until = models.DateTimeField(null=True)
    log = models.TextField(blank=True)  # the last lines of what a slow step did

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["deployment", "kind"], name="phase_once")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.deployment_id}"

    @classmethod
    def first_of(cls, deployment: Deployment, at: datetime) -> Phase:
        """The first phase, begun already: a message to its worker goes out with the wish itself."""
        kind = PhaseKind.VALIDATION
        return cls(
            deployment=deployment,
            kind=kind,
            position=0,
            state=PhaseState.RUNNING,
            started_at=at,
            deadline=at + kind.deadline,
            message=kind.doing,
            lease_until=at + MESSAGE_LEASE,
        )

    def end(self, state: PhaseState, *, at: datetime, reason: str = "", message: str = "", **more: Any) -> bool:
        """Close the phase if it is running; True if this call closed it."""
        return bool(
            Phase.objects.filter(pk=self.pk, state=PhaseState.RUNNING).update(
                state=state, ended_at=at, reason=reason, message=message, lease_until=None, **more
            )
        )


class InstanceQuerySet(models.QuerySet["Instance"]):
    def live(self) -> InstanceQuerySet:
        return self.filter(ended_at=None)


class Instance(models.Model):
    """One running thing, as observed; kept after its end, because it is billing's evidence."""

    endpoint = models.ForeignKey("Endpoint", models.CASCADE, related_name="instances")
    revision = models.ForeignKey("Revision", models.PROTECT, related_name="instances")
    name = models.CharField(max_length=120, unique=True)
    state = models.CharField(max_length=10, choices=InstanceState.choices, default=InstanceState.STARTING)
    address = models.CharField(max_length=200, blank=True)
    started_at = models.DateTimeField()
    ready_at = models.DateTimeField(null=True)  # first time it answered; billed from here
    unready_at = models.DateTimeField(null=True)  # since when it has not answered; None while it does
    draining_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    probe_failures = models.PositiveSmallIntegerField(default=0)  # in a row
    restarts = models.PositiveIntegerField(default=0)  # how many before it in its place failed
    exit_code = models.IntegerField(null=True)
    reason = models.CharField(max_length=60, blank=True)
    message = models.TextField(blank=True)

    objects = InstanceQuerySet.as_manager()

    class Meta:
        ordering = ["-started_at", "-id"]
        indexes = [
            models.Index(fields=["endpoint", "ended_at"]),
            models.Index(fields=["endpoint"], condition=Q(ended_at=None), name="instance_live"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(ended_at=None) | Q(state__in=ENDED), name="instance_ended_is_stopped_or_failed"
            )
        ]

    def __str__(self) -> str:
        return self.name
