"""Asynchronous requests, the tries to tell a webhook of them, and the secrets that sign those tries."""

from __future__ import annotations

import base64
import secrets
import uuid
from datetime import datetime, timedelta
from typing import Any, Self

import orjson
from cryptography.fernet import InvalidToken
from django.conf import settings
from django.db import IntegrityError, models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import ApiKey, Project, User
from accounts.refused import Refused
from accounts.roles import Right
from accounts.sealing import box
from endpoints.models import Endpoint

By = User | ApiKey | None
OVERLAP = timedelta(hours=24)


def new_request_id() -> str:
    return f"async-req-{uuid.uuid4().hex}"


class State(models.TextChoices):
    """`queued ⇄ running → succeeded | failed`, and `cancelled` from either of the first two.

    Back to queued goes what met a limit, no instance, or the death of whoever ran it.
    """

    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"

    @property
    def tone(self) -> str:
        return {State.SUCCEEDED: "ok", State.FAILED: "bad"}.get(self, "idle")


class Told(models.TextChoices):
    """How far the webhook knows: waiting for the end, being told, told, or given up."""

    NOT_ASKED = "none", "No webhook"
    LATER = "later", "After the result"
    WAITING = "waiting", "Being delivered"
    DELIVERED = "delivered", "Delivered"
    GIVEN_UP = "failed", "Not delivered"

    @property
    def tone(self) -> str:
        return {Told.DELIVERED: "ok", Told.GIVEN_UP: "bad"}.get(self, "idle")


OPEN = (State.QUEUED, State.RUNNING)


class AsyncRequestQuerySet(models.QuerySet["AsyncRequest"]):
    def where(self, user: Any, right: Right) -> AsyncRequestQuerySet:
        return self.filter(project__in=Project.objects.where(user, right))

    def light(self) -> AsyncRequestQuerySet:
        """Without the texts, which can be large."""
        return self.defer("body", "answer")

    def open(self) -> AsyncRequestQuerySet:
        return self.filter(state__in=OPEN)

    def claimable(self) -> AsyncRequestQuerySet:
        """Queued and due, or running under a lease that nobody renews."""
        due = Q(state=State.QUEUED, due_at__lte=Now())
        return self.filter(due | Q(state=State.RUNNING, lease_until__lt=Now()))


class AsyncRequest(models.Model):
    """One request to be run once. `body` and `answer` are sealed, and gone after their time.

    `lease_token` is of whoever runs it; every change by a runner is guarded by it. `failures` counts runs whose
    end is unknown or was the instance's fault. Times that are compared across machines are the database's.
    """

    request_id = models.CharField(max_length=48, unique=True, default=new_request_id, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="async_requests")
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="async_requests")
    key = models.ForeignKey(ApiKey, models.SET_NULL, null=True, related_name="+")
    person = models.ForeignKey(
        User, models.SET_NULL, null=True, related_name="+"
    )  # by a signed token, without a key
    path = models.CharField(max_length=80)  # behind the endpoint, such as v1/chat/completions
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    due_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)  # when its texts go; set at its end
    attempts = models.PositiveSmallIntegerField(default=0)
    failures = models.PositiveSmallIntegerField(default=0)
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    body = models.BinaryField(null=True)
    body_bytes = models.PositiveIntegerField(default=0)
    answer = models.BinaryField(null=True)
    answer_bytes = models.PositiveIntegerField(default=0)
    status = models.PositiveSmallIntegerField(null=True)  # of the last answer, HTTP's number
    error_code = models.CharField(max_length=80, blank=True)
    prompt_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField(default=0)
    cancelled_by = models.CharField(max_length=160, blank=True)
    idempotency_key = models.CharField(max_length=200, blank=True)
    idempotency_digest = models.CharField(max_length=64, blank=True)

    webhook = models.BinaryField(null=True)  # its address, sealed: such addresses hold tokens
    told = models.CharField(max_length=10, choices=Told.choices, default=Told.NOT_ASKED)
    tries = models.PositiveSmallIntegerField(default=0)
    next_try_at = models.DateTimeField(null=True)
    asked_by = models.CharField(max_length=160, blank=True)  # who wants it delivered once more

    objects = AsyncRequestQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=State.values), name="async_state_known"),
            models.CheckConstraint(condition=Q(told__in=Told.values), name="async_told_known"),
            models.CheckConstraint(
                condition=Q(state=State.RUNNING, lease_token__isnull=False)
                | (~Q(state=State.RUNNING) & Q(lease_token=None)),
                name="async_running_is_leased",
            ),
            models.UniqueConstraint(
                fields=["endpoint", "idempotency_key"],
                condition=~Q(idempotency_key=""),
                name="async_idempotency_key_once",
            ),
        ]
        indexes = [
            models.Index(fields=["endpoint", "id"], condition=Q(state__in=OPEN), name="async_open"),
            models.Index(fields=["next_try_at"], condition=Q(told=Told.WAITING), name="async_to_tell"),
            models.Index(fields=["expires_at"], name="async_expires"),
            models.Index(fields=["project", "-id"], name="async_of_project"),
            models.Index(fields=["endpoint", "-finished_at"], name="async_history"),
        ]

    def __str__(self) -> str:
        return self.request_id

    @classmethod
    def submit(cls, *, body: bytes, webhook: str = "", **columns: Any) -> tuple[AsyncRequest, bool]:
        """Queue it; the second part is whether this call did, or one before with the same Idempotency-Key.

        Raises Refused when that one had another body.
        """
        sealed = box().encrypt(body)
        if webhook:
            columns |= {"webhook": box().encrypt(webhook.encode()), "told": Told.LATER}
        try:
            with transaction.atomic():
                return cls.objects.create(body=sealed, body_bytes=len(body), **columns), True
        except IntegrityError as problem:
            if "async_idempotency_key_once" not in str(problem):
                raise
        before = cls.objects.get(endpoint=columns["endpoint_id"], idempotency_key=columns["idempotency_key"])
        if before.idempotency_digest != columns["idempotency_digest"]:
            raise Refused("This Idempotency-Key was used with another body.", code="idempotency_key_reused")
        return before, False

    def cancel(self, *, by: str) -> bool:
        """End it now, before or while it runs: whoever runs it finds its lease gone and hangs up.

        True if this call was the one that did.
        """
        ending = ended(State.CANCELLED, status=None)
        rows = AsyncRequest.objects.filter(pk=self.pk, state__in=OPEN)
        won = bool(rows.update(**ending, **telling(), cancelled_by=by[:160]))
        self.refresh_from_db()
        return won

    def redeliver(self, *, by: str) -> None:
        """Tell the webhook once more, and as long as a first time. Raises Refused."""
        if self.webhook is None:
            raise Refused("This request names no webhook.", code="no_webhook")
        if self.finished_at is None:
            raise Refused("It has no result yet; the webhook is told of it then.", code="not_finished")
        if self.expired:
            raise Refused("Its result has expired and can't be delivered any more.", code="expired")
        AsyncRequest.objects.filter(pk=self.pk).update(
            told=Told.WAITING, tries=0, next_try_at=Now(), asked_by=by[:160]
        )
        self.refresh_from_db()

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @property
    def over(self) -> bool:
        return self.state not in OPEN

    @property
    def waited(self) -> float | None:
        """Seconds until its last run began."""
        return (self.started_at - self.created_at).total_seconds() if self.started_at else None

    @property
    def ran(self) -> float | None:
        """Seconds of the last run, once it is over."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    def opened(self, sealed: bytes | memoryview | None) -> bytes | None:
        """A sealed column's text; None once it is gone, or when no encryption key opens it."""
        try:
            return None if sealed is None else box().decrypt(bytes(sealed))
        except InvalidToken:
            return None

    def error(self) -> dict[str, Any] | None:
        """Why it failed, in OpenAI's shape."""
        text = self.opened(self.answer) if self.state == State.FAILED else None
        found: dict[str, Any] | None = orjson.loads(text)["error"] if text else None
        return found


def ended(state: State, *, status: int | None, code: str = "") -> dict[str, Any]:
    """The columns of an end that comes now."""
    kept = timedelta(hours=settings.ASYNC_RESULT_HOURS)
    return {
        "state": state,
        "status": status,
        "error_code": code[:80],
        "finished_at": Now(),
        "expires_at": Now() + kept,
        "lease_token": None,
        "lease_until": None,
        "body": None,
    }


def telling() -> dict[str, Any]:
    """The columns that let the webhook, if there is one, be told from now on."""
    asked = Q(told=Told.LATER)
    return {
        "told": models.Case(models.When(asked, then=models.Value(Told.WAITING)), default=F("told")),
        "next_try_at": models.Case(models.When(asked, then=Now()), default=F("next_try_at")),
    }


class Delivery(models.Model):
    """One try to tell the webhook, kept with how it went; never with what the receiver wrote."""

    request = models.ForeignKey(AsyncRequest, models.CASCADE, related_name="deliveries")
    at = models.DateTimeField(default=timezone.now)
    seconds = models.FloatField(default=0)
    status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=300, blank=True)
    by = models.CharField(max_length=160, blank=True)  # who asked for it; empty: the schedule

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.request_id} {self.at:%F %T}"

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookSecret(models.Model):
    """What a project's webhooks are signed with: one that stays, and one that ends a day after it was replaced."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="webhook_secrets")
    sealed = models.BinaryField(editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    retires_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project"], condition=Q(retires_at=None), name="webhook_secret_one_stays"
            )
        ]

    def __str__(self) -> str:
        return f"webhook secret {self.pk}"

    @classmethod
    def current(cls, project: Project) -> Self | None:
        return cls.objects.filter(project=project, retires_at=None).first()

    @classmethod
    @transaction.atomic
    def rotate(cls, project: Project, *, replacing: int | None, by: By) -> tuple[Self, str]:
        """A new secret, seen only here; the one before signs beside it for a day.

        `replacing` is the id of the one that is seen as current, so that the same form sent twice doesn't end it
        early. Raises Refused.
        """
        Project.objects.select_for_update().get(pk=project.pk)
        before = cls.current(project)
        if (before.pk if before else None) != replacing:
            raise Refused("The secret was rotated already. Its value is shown only once.", code="rotated_already")
        cls.objects.filter(project=project, retires_at__isnull=False).delete()
        cls.objects.filter(project=project).update(retires_at=timezone.now() + OVERLAP)
        made, value = cls._make(project, by=by if isinstance(by, User) else None)
        project.note("webhook_secret.rotated", "Made a new webhook secret.", by=by)
        return made, value

    @classmethod
    def valid(cls, project: Project, *, at: datetime) -> list[str]:
        """The secrets to sign with, newest first. A project without one gets one that nobody has seen."""
        rows = cls.objects.filter(project=project).filter(Q(retires_at=None) | Q(retires_at__gt=at))
        found = [value for row in rows if (value := row.reveal())]
        return found or [cls._first(project)]

    @classmethod
    @transaction.atomic
    def _first(cls, project: Project) -> str:
        Project.objects.select_for_update().get(pk=project.pk)
        stays = cls.current(project)
        if stays is not None and (value := stays.reveal()):
            return value  # somebody made it a moment ago
        cls.objects.filter(project=project).delete()  # no encryption key opens them any more
        return cls._make(project, by=None)[1]

    @classmethod
    def _make(cls, project: Project, *, by: User | None) -> tuple[Self, str]:
        value = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        return cls.objects.create(project=project, sealed=box().encrypt(value.encode()), created_by=by), value

    def reveal(self) -> str | None:
        """The secret; None when no encryption key opens it."""
        try:
            return box().decrypt(bytes(self.sealed)).decode()
        except InvalidToken:
            return None
