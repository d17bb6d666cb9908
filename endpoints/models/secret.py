"""Secrets: written, used, never shown again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cryptography.fernet import InvalidToken
from django.core.validators import RegexValidator
from django.db import IntegrityError, models, transaction
from django.db.models import F
from django.utils import timezone

from accounts.models import Project, User
from accounts.refused import Refused
from accounts.roles import Right
from accounts.sealing import box
from endpoints.models.endpoint import By, Revision
from endpoints.models.event import Event, actor_fields
from endpoints.models.version_import import VersionImport

WITHOUT = "Deploy endpoints without it, and let imports end, first."
Needs = Revision | str  # an import in words


class Undecryptable(Exception):
    """None of the encryption keys opens this secret; store it again."""


class SecretQuerySet(models.QuerySet["Secret"]):
    def visible_to(self, user: Any) -> SecretQuerySet:
        return self.filter(project__in=Project.objects.where(user, Right.VIEW))

    def editable_by(self, user: Any) -> SecretQuerySet:
        return self.filter(project__in=Project.objects.where(user, Right.OPERATE))


class Secret(models.Model):
    """A named value that instances and downloads may use. Revisions hold its name, never its value."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="secrets")
    name = models.CharField(
        max_length=80,
        validators=[
            RegexValidator(
                r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
                "Use small letters, digits and hyphens, beginning and ending with a letter or digit.",
            )
        ],
    )
    ciphertext = models.BinaryField(editable=False)
    description = models.CharField(max_length=200, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = SecretQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="secret_name_once")]

    def __str__(self) -> str:
        return self.name

    @classmethod
    @transaction.atomic
    def store(cls, project: Project, name: str, value: str, *, description: str = "", by: By) -> Secret:
        """Keep a new value under a free name. Raises Refused: name taken."""
        secret = cls(project=project, name=name, description=description, created_by=actor_fields(by)["actor"])
        secret.put(value)
        try:
            with transaction.atomic():
                secret.save()
        except IntegrityError:
            raise Refused(
                f"There is a secret “{name}” already. Replace its value instead.", field="name", code="name_taken"
            ) from None
        secret._record("secret.stored", f"Stored the secret “{name}”.", by=by)
        return secret

    @transaction.atomic
    def replace(self, value: str, *, by: By) -> None:
        """Instances that run keep the old value until they are restarted."""
        self.put(value)
        self.save(update_fields=["ciphertext", "updated_at"])
        self._record("secret.replaced", f"Replaced the value of the secret “{self.name}”.", by=by)

    @transaction.atomic
    def discard(self, *, by: By) -> None:
        """Delete it. Raises Refused while a living endpoint's revision or an import that isn't over needs it."""
        Secret.objects.select_for_update().get(pk=self.pk)
        if users := self.used_by():
            raise Refused(f"“{self.name}” is used by {', '.join(map(str, users))}. {WITHOUT}", code="in_use")
        self._record("secret.deleted", f"Deleted the secret “{self.name}”.", by=by)
        self.delete()

    def used_by(self) -> list[Needs]:
        """The revisions that serve, are being deployed or would be started, and the imports not over."""
        return needing(self.project, {self.name}).get(self.name, [])

    def _record(self, kind: str, message: str, *, by: By) -> None:
        Event.objects.create(project=self.project, kind=kind, message=message, **actor_fields(by))

    def put(self, value: str) -> None:
        """Replace the value; the caller saves."""
        self.ciphertext = box().encrypt(value.encode())
        self.updated_at = timezone.now()

    def reveal(self) -> str:
        """The value, for the process that needs it. Raises Undecryptable."""
        try:
            return box().decrypt(bytes(self.ciphertext)).decode()
        except InvalidToken:
            raise Undecryptable(f"The secret “{self.name}” can't be decrypted. Store its value again.") from None


def needing(project: Project, names: Collection[str]) -> dict[str, list[Needs]]:
    """Which current revisions of living endpoints, and which unfinished imports, name which of these secrets."""
    living = Revision.objects.filter(endpoint__project=project, endpoint__deleted_at=None).select_related(
        "endpoint"
    )
    newest = living.order_by("endpoint_id", "-number").distinct("endpoint_id")
    serving = living.filter(pk=F("endpoint__serving_revision"))
    found: dict[str, list[Needs]] = {}
    for revision in sorted({*newest, *serving}, key=str):
        for name in _named(revision.spec) & set(names):
            found.setdefault(name, []).append(revision)
    unfinished = VersionImport.objects.unfinished().filter(model__project=project)
    for one in unfinished.filter(source__token_secret__in=list(names)).select_related("model"):
        found.setdefault(one.spec.token_secret, []).append(f"the import of {one} into {one.model}")
    return found


def _named(spec: Mapping[str, Any]) -> set[str]:
    single = spec["source"].get("token_secret", ""), spec.get("container", {}).get("registry_secret", "")
    return {*single, *spec.get("environment", {}).get("secrets", {}).values()}
