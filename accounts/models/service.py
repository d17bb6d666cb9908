"""Service accounts: names that programs call under for years, while their credentials change."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from accounts import bell
from accounts.models.allowance import LIMITS, Allowance, checked_limits
from accounts.models.key import ApiKey, Purpose, Scope
from accounts.models.project import Project
from accounts.models.user import User
from accounts.refused import Refused

MOST_CREDENTIALS = 10
NAME = RegexValidator(
    r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z",
    "Use small letters, digits and hyphens, beginning and ending with a letter or digit.",
)
By = User | ApiKey | None


class ServiceAccountQuerySet(models.QuerySet["ServiceAccount"]):
    def listed(self, at: datetime) -> ServiceAccountQuerySet:
        """With `live`, the number of credentials that work now, and `used_at`, when one last called."""
        working = models.Q(credentials__revoked_at=None) & (
            models.Q(credentials__expires_at=None) | models.Q(credentials__expires_at__gt=at)
        )
        return self.annotate(
            live=models.Count("credentials", filter=working), used_at=models.Max("credentials__last_used_at")
        )


class ServiceAccount(Allowance):
    """A program with a name of its own in a project. Its allowance holds for all of its credentials together.

    A credential is an API key that calls and can't manage; a rotation makes a new one and lets the others
    work on until a chosen time, so that programs can change over one by one.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="service_accounts")
    name = models.CharField(max_length=60, validators=[NAME])
    description = models.CharField(max_length=200, blank=True)
    disabled_at = models.DateTimeField(null=True, editable=False)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, editable=False, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ServiceAccountQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            *Allowance.Meta.constraints,
            models.UniqueConstraint(fields=["project", "name"], name="service_account_name_once"),
        ]

    def __str__(self) -> str:
        return self.name

    @classmethod
    @transaction.atomic
    def open(
        cls,
        project: Project,
        *,
        name: str,
        by: By,
        description: str = "",
        endpoint_ids: list[int] | None = None,
        limits: Mapping[str, int | None] | None = None,
        expires_at: datetime | None = None,
        request_id: uuid.UUID | None = None,
    ) -> tuple[ServiceAccount, ApiKey, str]:
        """Make an account and its first credential, whose secret is seen only here.

        Raises Refused: name taken, limits out of range, the same form sent again.
        """
        person = by if isinstance(by, User) else None
        account = cls(project=project, name=name, description=description, created_by=person)
        account.endpoint_ids = endpoint_ids
        account._limit(limits or {})
        account._save_named(force_insert=True)
        project.note("service.made", f"Made the service account “{name}”.", by=by)
        key, secret = account._issue(by=by, expires_at=expires_at, request_id=request_id)
        return account, key, secret

    @transaction.atomic
    def change(self, changes: Mapping[str, Any], *, by: By) -> None:
        """Another description, endpoint_ids or limits, for all credentials within two seconds; what isn't given
        stays as it is. Raises Refused.
        """
        self._lock()
        self.refresh_from_db()
        known = {name: getattr(self, name) for name in ("description", "endpoint_ids", *LIMITS)} | dict(changes)
        self.description, self.endpoint_ids = known["description"], known["endpoint_ids"]
        self._limit(known)
        self._save_named(update_fields=["description", "endpoint_ids", *LIMITS])
        self.project.note("service.changed", f"Changed the service account “{self.name}”.", by=by)
        bell.ring_gateway()

    @transaction.atomic
    def rotate(
        self,
        *,
        at: datetime,
        old_until: datetime | None,
        by: By,
        expires_at: datetime | None = None,
        request_id: uuid.UUID | None = None,
    ) -> tuple[ApiKey, str]:
        """A new credential. Those there are work until `old_until`; `at` revokes them now, None leaves them be.

        None is for whoever changes programs over and revokes by hand. Raises Refused when there are too many.
        """
        self._lock()
        old = self.credentials.filter(revoked_at=None)
        if old_until is not None and old_until <= at:
            for key in old:
                key.revoke(at=at, by=by)
        elif old_until is not None:
            sooner = models.Q(expires_at=None) | models.Q(expires_at__gt=old_until)
            old.filter(sooner).update(expires_at=old_until)
        if self.credentials.live(at).count() >= MOST_CREDENTIALS:
            raise Refused(
                f"“{self.name}” has {MOST_CREDENTIALS} credentials that work. Revoke one first.", code="too_many"
            )
        key, secret = self._issue(by=by, expires_at=expires_at, request_id=request_id)
        self.project.note("service.rotated", f"Gave “{self.name}” a new credential ({key.prefix}…).", by=by)
        return key, secret

    @transaction.atomic
    def disable(self, *, at: datetime, by: By) -> bool:
        """Refuse all of its credentials until it is enabled; True if this call was the one that did."""
        return self._switch(at, by=by, what="service.disabled", said="Disabled")

    @transaction.atomic
    def enable(self, *, by: By) -> bool:
        return self._switch(None, by=by, what="service.enabled", said="Enabled")

    @transaction.atomic
    def discard(self, *, at: datetime, by: By) -> None:
        """Delete it; its credentials are refused from now on and stay as evidence of what they called."""
        self._lock()
        self.credentials.filter(revoked_at=None).update(revoked_at=at)
        self.project.note("service.deleted", f"Deleted the service account “{self.name}”.", by=by)
        bell.ring_gateway()
        self.delete()

    def _lock(self) -> None:
        ServiceAccount.objects.select_for_update().get(pk=self.pk)

    def _limit(self, limits: Mapping[str, int | None]) -> None:
        for name, value in checked_limits(limits).items():
            setattr(self, name, value)

    def _save_named(self, **how: Any) -> None:
        typed = {"name", "description"}
        try:
            self.clean_fields(exclude={field.name for field in self._meta.fields} - typed)
        except ValidationError as problem:
            field, texts = next(iter(problem.message_dict.items()))
            raise Refused(texts[0], field=field, code="invalid") from None
        try:
            with transaction.atomic():
                self.save(**how)
        except IntegrityError as problem:
            if "name_once" not in str(problem):
                raise
            taken = f"There is a service account “{self.name}” already. Choose another name."
            raise Refused(taken, field="name", code="name_taken") from None

    def _issue(self, *, by: By, expires_at: datetime | None, request_id: uuid.UUID | None) -> tuple[ApiKey, str]:
        return ApiKey.issue(
            self.project,
            name=self.name,
            scopes=[Scope.INFERENCE],
            by=by if isinstance(by, User) else None,
            expires_at=expires_at,
            purpose=Purpose.SERVICE,
            request_id=request_id,
            service_account=self,
        )

    def _switch(self, disabled_at: datetime | None, *, by: By, what: str, said: str) -> bool:
        others = ServiceAccount.objects.filter(pk=self.pk, disabled_at__isnull=disabled_at is not None)
        won = bool(others.update(disabled_at=disabled_at))
        if won:
            self.project.note(what, f"{said} the service account “{self.name}”.", by=by)
            bell.ring_gateway()
        return won
