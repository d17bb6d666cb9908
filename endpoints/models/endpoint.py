"""The aggregate root: what a person wants of an endpoint, and what the controller saw of it."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, cast

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import IntegrityError, models, transaction
from django.db.models import F, Q
from django.utils import timezone

from accounts.models import Project, User
from accounts.refused import Refused as Refused  # noqa: PLC0414 (every verb below may raise it)
from accounts.roles import Right
from endpoints import bell
from endpoints.models.admission import Admission
from endpoints.models.catalogue import InstanceType, Region
from endpoints.models.deployment import Deployment, DeploymentState, Phase, PhaseKind, PhaseState
from endpoints.models.desired import By as By  # noqa: PLC0414 (who may call every verb below)
from endpoints.models.event import Severity, actor_fields
from endpoints.models.scaled import NO_EMERGENCY, Scaled
from endpoints.spec import Spec
from endpoints.status import Desired, Status

RESERVED_NAMES = frozenset({"new"})  # where the wizard begins


def _not_reserved(value: str) -> None:
    if value in RESERVED_NAMES:
        raise ValidationError(f"“{value}” is a word of the console's own. Choose another name.")


class EndpointQuerySet(models.QuerySet["Endpoint"]):
    def living(self) -> EndpointQuerySet:
        return self.filter(deleted_at=None)

    def autoscaled(self) -> EndpointQuerySet:
        """Those whose number of instances follows the load: they serve, and may have more than one number."""
        serving = self.living().filter(desired=Desired.RUNNING, halted_at=None, serving_revision__isnull=False)
        return serving.filter(wanted__gt=0, max_instances__gt=F("min_instances"))

    def visible_to(self, user: Any) -> EndpointQuerySet:
        return self.living().filter(project__in=Project.objects.where(user, Right.VIEW))

    def editable_by(self, user: Any) -> EndpointQuerySet:
        return self.living().filter(project__in=Project.objects.where(user, Right.OPERATE))


class Endpoint(Scaled):
    """Desired columns are written by people's verbs, observed ones only by the controller.

    `generation` goes up with each wish; the controller copies it to `observed_generation` once it has
    planned with it. `status` is a cache of `endpoints.status.status_of`, written in one place.
    """

    project = models.ForeignKey(Project, models.PROTECT, related_name="endpoints")
    name = models.CharField(
        max_length=40,
        validators=[
            RegexValidator(
                r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$",
                "Use small letters, digits and hyphens; begin with a letter, end with a letter or digit.",
            ),
            _not_reserved,
        ],
    )
    region = models.ForeignKey(Region, models.PROTECT, related_name="endpoints")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    billing_model = models.CharField(max_length=12, default="hourly")

    # observed
    observed_generation = models.PositiveIntegerField(default=0)
    serving_revision = models.ForeignKey("Revision", models.SET_NULL, null=True, related_name="+")
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.DEPLOYING)
    status_since = models.DateTimeField(default=timezone.now)
    notice_reason = models.CharField(max_length=60, blank=True)  # why fewer run than wanted, if that is so
    notice = models.TextField(blank=True)
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    deleted_at = models.DateTimeField(null=True)

    objects = EndpointQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["name"], condition=Q(deleted_at=None), name="endpoint_name_once"),
            models.CheckConstraint(condition=Q(min_instances__lte=10), name="endpoint_min_range"),
            models.CheckConstraint(
                condition=Q(max_instances__gte=1, max_instances__lte=100), name="endpoint_max_range"
            ),
            models.CheckConstraint(condition=Q(min_instances__lte=F("max_instances")), name="endpoint_min_max"),
            models.CheckConstraint(condition=Q(wanted__lte=F("max_instances")), name="endpoint_wanted_max"),
            models.CheckConstraint(
                condition=Q(emergency_instances__lte=F("max_instances")), name="endpoint_emergency_max"
            ),
            models.CheckConstraint(condition=Q(warm_spare__lte=10), name="endpoint_spare_range"),
        ]
        indexes = [models.Index(fields=["project", "name"])]

    def __str__(self) -> str:
        return self.name

    # ── verbs: what people and programs ask for ──────────────────────────────────────────────────
    @classmethod
    def launch(cls, project: Project, spec: Spec, *, by: By, at: datetime | None = None) -> Endpoint:
        """Create an endpoint and its first deployment, or nothing at all. Raises Refused: name taken."""
        at = at or timezone.now()
        scaling = spec.scaling
        try:
            with transaction.atomic():
                endpoint = cls.objects.create(
                    project=project,
                    name=spec.name,
                    region=Region.objects.get(slug=spec.region),
                    created_by=actor_fields(by)["actor"],
                    wanted=scaling.first,
                    wished_at=at,
                    wished_by=str(by or ""),
                    **asdict(scaling),
                )
                endpoint._begin(endpoint._revise(spec, by=by, at=at), cause="deploy", by=by, at=at)
        except IntegrityError as problem:
            if "endpoint_name_once" not in str(problem):
                raise
            raise Refused(
                f"The name “{spec.name}” is taken. Choose another.", field="name", code="name_taken"
            ) from None
        return endpoint

    @transaction.atomic
    def deploy(self, spec: Spec, *, by: By, with_scaling: bool = False, at: datetime | None = None) -> Deployment:
        """Make a new revision of this endpoint serve; the present one serves until it does.

        The scaling policy, which changes without deployments, stays as it is and goes into the revision;
        `with_scaling`: whoever deploys means the spec's. How it is billed is the spec's either way.
        """
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        if self.deployments.filter(state=DeploymentState.RUNNING).exists():
            raise Refused("A deployment is under way. Wait for it or cancel it first.", code="deployment_running")
        scaling = spec.scaling if with_scaling else replace(spec.scaling, **cast(Any, self.policy))
        most = scaling.max_instances
        wanted = max(1, scaling.min_instances, min(self.wanted, most))
        held = min(self.emergency_instances, most)
        columns = asdict(scaling) | {"desired": Desired.RUNNING, "wanted": wanted, "emergency_instances": held}
        self._wish(by, at, **columns)
        revision = self._revise(replace(spec, scaling=scaling), by=by, at=at)
        return self._begin(revision, cause="deploy", by=by, at=at)

    @transaction.atomic
    def update_admission(self, *, by: By, at: datetime | None = None, **changes: Any) -> bool:
        """Change columns of the traffic rules; gateways know within a second. False when nothing differs.
        Raises Refused at the field that is out of its range."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        rules = self.rules
        if not (said := rules.change(changes)):
            return False
        rules.save()
        self.record("endpoint.admission_updated", by=by, at=at, message=f"Traffic rules: {', '.join(said)}.")
        bell.ring_gateway()
        bell.ring_pages(self.project_id, self.pk, ["events"])
        return True

    @transaction.atomic
    def stop(self, *, by: By, at: datetime | None = None) -> bool:
        """End all instances after they drained; the endpoint and its address stay. False if stopped already."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        if self.desired == Desired.STOPPED:
            return False
        self._cancel_deployment(by=by, at=at, message="The endpoint was stopped.")
        held = {"wanted": max(1, self.min_instances)} if self.held(at) else {}
        self._wish(by, at, desired=Desired.STOPPED, **NO_EMERGENCY, **held)
        self.record("endpoint.stopped", by=by, at=at, message="Asked to stop.")
        return True

    @transaction.atomic
    def start(self, *, by: By, at: datetime | None = None) -> bool:
        """Run again: the revision that served last, or the newest. False if it runs already."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        failed = self.halted_at is not None or self.serving_revision_id is None
        if self.desired == Desired.RUNNING and not failed:
            return False
        if self.deployments.filter(state=DeploymentState.RUNNING).exists():
            return False
        revision = self.serving_revision or self.revisions.latest("number")
        self._wish(by, at, desired=Desired.RUNNING, wanted=max(1, self.wanted))
        self._begin(revision, cause="start", by=by, at=at)
        self.record("endpoint.started", by=by, at=at, message=f"Asked to start revision {revision.number}.")
        return True

    @transaction.atomic
    def restart(self, *, by: By, at: datetime | None = None) -> Deployment:
        """Replace every instance by a new one of the same revision, one at a time, without downtime."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        if self.desired != Desired.RUNNING:
            raise Refused("The endpoint is stopped. Start it instead.", code="stopped")
        if self.deployments.filter(state=DeploymentState.RUNNING).exists():
            raise Refused("A deployment is under way. Wait for it or cancel it first.", code="deployment_running")
        revision = self.serving_revision or self.revisions.latest("number")
        self._wish(by, at, restarted_at=at)
        self.record("endpoint.restarted", by=by, at=at, message=f"Asked to restart revision {revision.number}.")
        return self._begin(revision, cause="restart", by=by, at=at)

    @transaction.atomic
    def delete_endpoint(self, *, by: By, at: datetime | None = None) -> bool:
        """End everything and free the name; what billing needs is kept. Works from any state."""
        at = at or timezone.now()
        self._lock()
        if self.desired == Desired.DELETED:
            return False
        self._cancel_deployment(by=by, at=at, message="The endpoint was deleted.")
        self._wish(by, at, desired=Desired.DELETED)
        self.record("endpoint.deleted", by=by, at=at, message="Asked to delete.", severity=Severity.WARN)
        return True

    @transaction.atomic
    def cancel(self, *, by: By, at: datetime | None = None) -> bool:
        """Give up the deployment under way. False when there is none.

        What served before serves on; an endpoint that never served is stopped, and can be started.
        """
        at = at or timezone.now()
        self._lock()
        if not self._cancel_deployment(by=by, at=at, message="Cancelled by a person."):
            return False
        served = self.serving_revision_id is not None
        self._wish(by, at, desired=self.desired if served else Desired.STOPPED)
        return True

    # ── parts of the verbs ───────────────────────────────────────────────────────────────────────
    def _revise(self, spec: Spec, *, by: By, at: datetime) -> Revision:
        last = self.revisions.order_by("-number").values_list("number", flat=True).first() or 0
        return Revision.objects.create(
            endpoint=self,
            number=last + 1,
            spec=spec.to_dict(),
            instance_type=InstanceType.objects.get(slug=spec.instance_type),
            created_by=actor_fields(by)["actor"],
            created_at=at,
        )

    def _begin(self, revision: Revision, *, cause: str, by: By, at: datetime) -> Deployment:
        actor = actor_fields(by)
        deployment = Deployment.objects.create(
            endpoint=self,
            revision=revision,
            cause=cause,
            started_at=at,
            created_by=actor["actor"],
            created_by_key=actor["actor_key"],
        )
        later = list(PhaseKind)[1:]
        Phase.objects.bulk_create(
            [Phase.first_of(deployment, at)]
            + [Phase(deployment=deployment, kind=kind, position=nth) for nth, kind in enumerate(later, 1)]
        )
        transaction.on_commit(lambda: bell.send("endpoints.validate", deployment.pk, queue="slow"))
        self.record("deployment.started", by=by, at=at, message=f"Deployment of revision {revision.number} began.")
        self._ring()
        return deployment

    def _cancel_deployment(self, *, by: By, at: datetime, message: str) -> bool:
        running = self.deployments.filter(state=DeploymentState.RUNNING).first()
        if running is None:
            return False
        Deployment.objects.filter(pk=running.pk, state=DeploymentState.RUNNING).update(
            state=DeploymentState.CANCELLED, reason="Cancelled", message=message, ended_at=at
        )
        running.phases.filter(state=PhaseState.RUNNING).update(
            state=PhaseState.CANCELLED, ended_at=at, message=message, lease_until=None
        )
        self.record("deployment.cancelled", by=by, at=at, message=message, severity=Severity.WARN)
        return True

    # ── reading ──────────────────────────────────────────────────────────────────────────────────
    @property
    def owner(self) -> str:
        """The label on everything outside that runs for this endpoint."""
        return f"endpoint-{self.pk}"

    @property
    def rules(self) -> Admission:
        """The traffic rules as they are stored, or the defaults."""
        return Admission.objects.filter(endpoint=self).first() or Admission(endpoint=self)

    @property
    def latest_deployment(self) -> Deployment | None:
        return self.deployments.select_related("revision").first()


class Revision(models.Model):
    """An immutable, numbered spec. `resolved` is written once, by the first validation: commit, files, facts."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    spec = models.JSONField(editable=False)
    instance_type = models.ForeignKey(InstanceType, models.PROTECT, related_name="+")
    resolved = models.JSONField(default=dict, editable=False)
    model_path = models.TextField(blank=True, editable=False)  # where the fetch put it
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["endpoint", "number"], name="revision_number_once")]

    def __str__(self) -> str:
        return f"{self.endpoint} r{self.number}"

    @property
    def wish(self) -> Spec:
        return Spec.from_dict(self.spec)


class IdempotentRequest(models.Model):
    """A `POST` that was done once: the same key with the same body answers with what it made."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    digest = models.CharField(max_length=64)
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, null=True, related_name="+")
    version_import = models.ForeignKey("endpoints.VersionImport", models.CASCADE, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "key"], name="idempotency_key_once")]

    def __str__(self) -> str:
        return self.key
