"""The keys that programs call with."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.postgres.fields import ArrayField
from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils import timezone

from accounts import bell
from accounts.models.allowance import LIMITS, Allowance, checked_limits
from accounts.models.project import Project
from accounts.models.user import User
from accounts.refused import Refused

if TYPE_CHECKING:
    from accounts.models.service import ServiceAccount


class Scope(models.TextChoices):
    INFERENCE = "inference", "Inference"
    MANAGE = "manage", "Manage"


class Purpose(models.TextChoices):
    PROGRAM = "program", "Program"
    PLAYGROUND = "playground", "Playground"  # what the Try it box made before there were signed tokens
    SERVICE = "service", "Service account"


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def unrevoked(self) -> ApiKeyQuerySet:
        """Those nobody took back, by themselves or with their service account; expired ones are among them."""
        orphaned = Q(purpose=Purpose.SERVICE, service_account=None)
        return self.filter(revoked_at=None, service_account__disabled_at=None).exclude(orphaned)

    def live(self, at: datetime) -> ApiKeyQuerySet:
        return self.unrevoked().filter(Q(expires_at=None) | Q(expires_at__gt=at))

    def listed(self) -> ApiKeyQuerySet:
        """Those that people made for their programs."""
        return self.filter(purpose=Purpose.PROGRAM)

    def matching(self, secret: str, at: datetime) -> ApiKey | None:
        """The live key that `secret` is, or None. The look-up is by digest, so it leaks no timing."""
        return (
            self.live(at)
            .select_related("project", "created_by", "service_account")
            .filter(digest=ApiKey.digest_of(secret))
            .first()
        )


class ApiKey(Allowance):
    """A program's credential: shown once, kept as a hash, revoked at once.

    The secret has 256 random bits, so an unsalted SHA-256 can't be searched for. A service account's credential
    has no allowance of its own: its account's holds for all of them together.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=16, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    purpose = models.CharField(max_length=10, choices=Purpose.choices, default=Purpose.PROGRAM, editable=False)
    scopes = ArrayField(models.CharField(max_length=12, choices=Scope.choices))
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    request_id = models.UUIDField(null=True, unique=True, editable=False)  # one form makes one key
    service_account = models.ForeignKey(
        "accounts.ServiceAccount",
        models.SET_NULL,  # what it called stays billing's evidence
        null=True,
        editable=False,
        related_name="credentials",
    )

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["project", "-created_at"])]
        constraints = Allowance.Meta.constraints

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @staticmethod
    def digest_of(secret: str) -> str:
        return hashlib.sha256(secret.encode()).hexdigest()

    @classmethod
    @transaction.atomic
    def issue(
        cls,
        project: Project,
        *,
        name: str,
        scopes: list[str],
        by: User | None,
        expires_at: datetime | None = None,
        purpose: str = Purpose.PROGRAM,
        request_id: uuid.UUID | None = None,
        service_account: ServiceAccount | None = None,
        endpoint_ids: list[int] | None = None,
        limits: Mapping[str, int | None] | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; the second part of the answer is the only time its secret is seen.

        Raises Refused when a form with this `request_id` has made its key already, and for limits out of range.
        """
        prefix = f"tir_{secrets.token_hex(4)}"
        secret = f"{prefix}_{secrets.token_urlsafe(32)}"
        try:
            with transaction.atomic():
                key = cls.objects.create(
                    project=project,
                    name=name,
                    prefix=prefix,
                    digest=cls.digest_of(secret),
                    purpose=purpose,
                    scopes=sorted(set(scopes)),
                    expires_at=expires_at,
                    created_by=by,
                    request_id=request_id,
                    service_account=service_account,
                    endpoint_ids=endpoint_ids,
                    **checked_limits(limits or {}),
                )
        except IntegrityError as problem:
            if "request_id" not in str(problem):
                raise
            raise Refused(
                "That key was made already. Its secret is shown only once.", code="made_already"
            ) from None
        if purpose == Purpose.PROGRAM:
            project.note("key.issued", f"Made the key “{name}” ({prefix}…) for {' and '.join(key.scopes)}.", by=by)
        bell.ring_gateway()
        return key, secret

    @transaction.atomic
    def change(self, changes: Mapping[str, Any], *, by: User | ApiKey | None) -> None:
        """Other endpoint_ids or limits, within two seconds; what isn't given stays as it is. Raises Refused: a
        revoked one, one that manages kept to endpoints, limits out of range.
        """
        known = ApiKey.objects.select_for_update(of=("self",)).get(pk=self.pk)
        if known.revoked_at is not None:
            raise Refused(f"“{self.name}” was revoked, so there is nothing to change.", code="revoked")
        wanted = {name: getattr(known, name) for name in ("endpoint_ids", *LIMITS)} | dict(changes)
        if self.manages and wanted["endpoint_ids"] is not None:
            raise Refused("A key that manages reaches every endpoint.", field="endpoints", code="manages")
        self.endpoint_ids = wanted["endpoint_ids"]
        for name, value in checked_limits(wanted).items():
            setattr(self, name, value)
        self.save(update_fields=["endpoint_ids", *LIMITS])
        said = f"Changed what the key “{self.name}” ({self.prefix}…) may call, and how much."
        self.project.note("key.changed", said, by=by)
        bell.ring_gateway()

    @transaction.atomic
    def revoke(self, *, at: datetime, by: User | ApiKey | None = None) -> bool:
        """Refuse it from now on; True if this call was the one that did."""
        won = bool(ApiKey.objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=at))
        if won:
            what, kind = ("service.revoked", "credential") if self.service_account_id else ("key.revoked", "key")
            self.project.note(what, f"Revoked the {kind} “{self.name}” ({self.prefix}…).", by=by)
            bell.ring_gateway()
        return won

    def used(self, *, at: datetime) -> None:
        """Note that it was used, at most once a minute."""
        ApiKey.objects.filter(pk=self.pk).filter(
            Q(last_used_at=None) | Q(last_used_at__lt=at - timedelta(minutes=1))
        ).update(last_used_at=at)

    @property
    def allowance(self) -> Allowance:
        return self.service_account or self

    @property
    def manages(self) -> bool:
        return Scope.MANAGE in self.scopes

    @property
    def state(self) -> str:
        if self.revoked_at:
            return "revoked"
        if self.expires_at and self.expires_at <= timezone.now():
            return "expired"
        return "active"
