"""The aggregate root: what a person wants of an endpoint, and what the controller saw of it."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import IntegrityError, models, transaction
from django.db.models import F, Q
from django.utils import timezone

from accounts.models import ApiKey, Project, User
from accounts.refused import Refused as Refused  # noqa: PLC0414 (every verb below may raise it)
from accounts.roles import Right
from endpoints import bell
from endpoints.models.admission import Admission
from endpoints.models.catalogue import InstanceType, Region
from endpoints.models.deployment import Deployment, DeploymentState, Phase, PhaseKind, PhaseState
from endpoints.models.event import Event, Severity, actor_fields
from endpoints.spec import LIMITS, ScalingSpec, Spec
from endpoints.status import Desired, Status

By = User | ApiKey | None
RESERVED_NAMES = frozenset({"new"})  # where the wizard begins
PAGES = ("status", "timeline", "instances", "events", "actions")


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


class Endpoint(models.Model):
    """Desired columns are written by people's verbs below, observed ones only by the controller.

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

    # desired
    desired = models.CharField(max_length=10, choices=Desired.choices, default=Desired.RUNNING)
    wanted = models.PositiveSmallIntegerField(default=1)
    min_instances = models.PositiveSmallIntegerField(default=1)
    max_instances = models.PositiveSmallIntegerField(default=10)
    target_concurrency = models.PositiveSmallIntegerField(default=10)
    scale_up_threshold = models.PositiveSmallIntegerField(default=80)
    scale_down_delay = models.PositiveSmallIntegerField(default=300)
    billing_model = models.CharField(max_length=12, default="hourly")
    generation = models.PositiveIntegerField(default=1)
    wished_at = models.DateTimeField(default=timezone.now)
    wished_by = models.CharField(max_length=160, blank=True)
    restarted_at = models.DateTimeField(null=True)

    # observed
    observed_generation = models.PositiveIntegerField(default=0)
    serving_revision = models.ForeignKey("Revision", models.SET_NULL, null=True, related_name="+")
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.DEPLOYING)
    status_since = models.DateTimeField(default=timezone.now)
    halted_at = models.DateTimeField(null=True)  # the crash budget is spent: nothing more is started
    halted_reason = models.CharField(max_length=60, blank=True)
    halted_message = models.TextField(blank=True)
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
                    wanted=max(1, scaling.min_instances),
                    wished_at=at,
                    wished_by=str(by or ""),
                    **_scaling_columns(scaling),
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
    def deploy(self, spec: Spec, *, by: By, at: datetime | None = None) -> Deployment:
        """Make a new revision of this endpoint serve; the present one serves until it does."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        if self.deployments.filter(state=DeploymentState.RUNNING).exists():
            raise Refused("A deployment is under way. Wait for it or cancel it first.", code="deployment_running")
        limits = spec.scaling
        wanted = max(1, limits.min_instances, min(self.wanted, limits.max_instances))
        self._wish(by, at, desired=Desired.RUNNING, wanted=wanted, **_scaling_columns(limits))
        return self._begin(self._revise(spec, by=by, at=at), cause="deploy", by=by, at=at)

    @transaction.atomic
    def scale(self, instances: int, *, by: By, at: datetime | None = None) -> bool:
        """Want this many instances. False when that many were wanted already. Raises Refused out of range."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        if self.desired != Desired.RUNNING:
            raise Refused("The endpoint is stopped. Start it first, then scale it.", code="stopped")
        if not self.min_instances <= instances <= self.max_instances:
            raise Refused(
                f"Choose between {self.min_instances} and {self.max_instances} instances, "
                "the limits of this endpoint's scaling settings.",
                field="instances",
                code="out_of_range",
            )
        before = self.wanted
        if before == instances and not self.halted_at:
            return False
        self._wish(by, at, wanted=instances)
        self.record("endpoint.scaled", by=by, at=at, before=str(before), after=str(instances),
                    message=f"Scaled from {before} to {instances} instances.")  # fmt: skip
        return True

    @transaction.atomic
    def update_scaling(self, *, by: By, at: datetime | None = None, **changes: int) -> bool:
        """Change columns of the scaling policy, without a deployment; what is wanted moves into the new limits.
        False when nothing differs. Raises Refused out of the specification's ranges."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        before = {name: int(getattr(self, name)) for name in changes}
        policy = {"min_instances": self.min_instances, "max_instances": self.max_instances} | changes
        _refuse_policy(policy)
        said = [f"{label_of(name)} {before[name]} → {new}" for name, new in changes.items() if new != before[name]]
        if not said:
            return False
        wanted = max(policy["min_instances"], min(self.wanted, policy["max_instances"]))
        said += [f"wanted {self.wanted} → {wanted}"] if wanted != self.wanted else []
        Endpoint.objects.filter(pk=self.pk).update(generation=F("generation") + 1, wanted=wanted, **changes)
        self._lock()
        self.record("endpoint.scaling_updated", by=by, at=at, message=f"Scaling policy: {', '.join(said)}.")
        self._ring()
        return True

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
    def autoscale(self, instances: int, *, why: str, generation: int, at: datetime | None = None) -> bool:
        """Want as many as the load needs. False if anybody wished something since that generation.

        No person wished it: who wished what, and the crash budget that a wish opens anew, stay as they are.
        """
        at = at or timezone.now()
        self._lock()
        if self.generation != generation or self.desired != Desired.RUNNING or self.halted_at:
            return False
        before = self.wanted
        if before == instances or not self.min_instances <= instances <= self.max_instances:
            return False
        self.wanted, self.generation = instances, generation + 1
        self.save(update_fields=["wanted", "generation"])
        self.record("endpoint.autoscaled", at=at, before=str(before), after=str(instances), message=why)
        self._ring()
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
        self._wish(by, at, desired=Desired.STOPPED)
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

    def record(self, kind: str, *, by: By = None, at: datetime | None = None, **fields: Any) -> Event:
        """Write an event of this endpoint."""
        return Event.objects.create(
            project_id=self.project_id,
            endpoint=self,
            kind=kind,
            at=at or timezone.now(),
            **actor_fields(by),
            **fields,
        )

    # ── parts of the verbs ───────────────────────────────────────────────────────────────────────
    def _lock(self) -> None:
        """Hold the row until the transaction ends, and look at it as it is."""
        fresh = Endpoint.objects.select_for_update(of=("self",)).get(pk=self.pk)
        self.__dict__.update({name: value for name, value in fresh.__dict__.items() if name != "_state"})

    def _refuse_if_deleted(self) -> None:
        if self.desired == Desired.DELETED:
            raise Refused("The endpoint is being deleted.", code="deleted")

    def _wish(self, by: By, at: datetime, **columns: Any) -> None:
        """Write desired columns, open the crash budget anew, and ring everybody."""
        columns |= {"halted_at": None, "halted_reason": "", "halted_message": ""}
        columns |= {"wished_at": at, "wished_by": str(by or "")}
        for name, value in columns.items():
            setattr(self, name, value)
        Endpoint.objects.filter(pk=self.pk).update(generation=F("generation") + 1, **columns)
        self.generation += 1
        self._ring()

    def _ring(self) -> None:
        bell.ring_controller(self.pk)
        bell.ring_gateway()
        bell.ring_pages(self.project_id, self.pk, PAGES)

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


def label_of(column: str) -> str:
    return column.replace("_", " ")


def _refuse_policy(policy: dict[str, int]) -> None:
    for name, value in policy.items():
        low, high, _ = LIMITS[name]
        if not low <= value <= high:
            said = f"{label_of(name).capitalize()} must be from {low:g} to {high:g}; you gave {value}."
            raise Refused(said, field=name, code="out_of_range")
    low, high = policy["min_instances"], policy["max_instances"]
    if low > high:
        said = f"Max instances must not be below min instances; {high} is less than {low}."
        raise Refused(said, field="max_instances", code="out_of_range")


def _scaling_columns(scaling: ScalingSpec) -> dict[str, Any]:
    return {
        "min_instances": scaling.min_instances,
        "max_instances": scaling.max_instances,
        "target_concurrency": scaling.target_concurrency,
        "scale_up_threshold": scaling.scale_up_threshold,
        "scale_down_delay": scaling.scale_down_delay,
        "billing_model": scaling.billing_model,
    }


class Revision(models.Model):
    """An immutable, numbered spec. `resolved` is written once, by the first validation: commit, files, facts."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    spec = models.JSONField(editable=False)
    instance_type = models.ForeignKey(InstanceType, models.PROTECT, related_name="+")
    resolved = models.JSONField(default=dict, editable=False)
    model_path = models.CharField(max_length=500, blank=True, editable=False)  # where the fetch put it
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
    """A `POST` that was done once: the same key with the same body answers with the same endpoint."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    digest = models.CharField(max_length=64)
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "key"], name="idempotency_key_once")]

    def __str__(self) -> str:
        return self.key


def new_lease() -> uuid.UUID:
    return uuid.uuid4()
