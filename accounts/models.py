"""People, the projects they share, and the keys their programs call with."""

from __future__ import annotations

import hashlib
import secrets
import zoneinfo
from datetime import datetime
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, UserManager
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.text import slugify

from accounts.roles import RIGHTS, Right, Role


def _known_timezone(value: str) -> None:
    if value and value not in zoneinfo.available_timezones():
        raise ValidationError(f"“{value}” is not a time zone. Choose one such as Asia/Kolkata.")


class People(UserManager["User"]):
    def create_user(  # type: ignore[override]
        self, email: str, password: str | None = None, **extra: Any
    ) -> User:
        user = self.model(email=self.normalize_email(email).lower(), **extra)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(  # type: ignore[override]
        self, email: str, password: str | None = None, **extra: Any
    ) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **extra)

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email__iexact=username)


class User(AbstractUser):
    """A person; known by email."""

    username = None  # type: ignore[assignment]
    first_name = None  # type: ignore[assignment]
    last_name = None  # type: ignore[assignment]
    name = models.CharField(max_length=120, blank=True)
    email = models.EmailField(unique=True)
    timezone = models.CharField(max_length=64, blank=True, validators=[_known_timezone])

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects: ClassVar[People] = People()  # type: ignore[assignment]

    class Meta:
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_once")]

    def __str__(self) -> str:
        return self.name or self.email

    def get_full_name(self) -> str:
        return str(self)


class ProjectQuerySet(models.QuerySet["Project"]):
    def where(self, user: Any, right: Right) -> ProjectQuerySet:
        """The projects in which `user` holds `right`; none for a stranger or nobody."""
        if not user.is_authenticated:
            return self.none()
        held = Membership.objects.filter(user=user, role__in=RIGHTS[right]).values("project_id")
        return self.filter(pk__in=held)

    def visible_to(self, user: Any) -> ProjectQuerySet:
        return self.where(user, Right.VIEW)

    def operable_by(self, user: Any) -> ProjectQuerySet:
        return self.where(user, Right.OPERATE)

    def administered_by(self, user: Any) -> ProjectQuerySet:
        return self.where(user, Right.ADMINISTER)


class Project(models.Model):
    """What endpoints, models, keys, secrets and costs belong to."""

    name = models.CharField(max_length=80)
    slug = models.SlugField(max_length=40, unique=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @classmethod
    @transaction.atomic
    def start(cls, name: str, *, owner: User) -> Project:
        """Create a project with a free slug and its first owner."""
        base = slugify(name)[:30] or "project"
        slug = base
        while slug in RESERVED_SLUGS or cls.objects.filter(slug=slug).exists():
            slug = f"{base}-{secrets.token_hex(2)}"
        project = cls.objects.create(name=name, slug=slug)
        Membership.objects.create(project=project, user=owner, role=Role.OWNER)
        return project

    def role_of(self, user: Any) -> Role | None:
        if not user.is_authenticated:
            return None
        found = self.memberships.filter(user=user).values_list("role", flat=True).first()
        return Role(found) if found else None

    def allows(self, user: Any, right: Right) -> bool:
        return self.role_of(user) in RIGHTS[right]


RESERVED_SLUGS = {"new"}


class Membership(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=Role.choices, default=Role.DEVELOPER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.project} as {self.role}"


class Scope(models.TextChoices):
    INFERENCE = "inference", "Inference"
    MANAGE = "manage", "Manage"


class Purpose(models.TextChoices):
    PROGRAM = "program", "Program"
    PLAYGROUND = "playground", "Playground"  # made by the Try it box for its viewer; lives minutes


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def live(self, at: datetime) -> ApiKeyQuerySet:
        return self.filter(revoked_at=None).filter(Q(expires_at=None) | Q(expires_at__gt=at))

    def matching(self, secret: str, at: datetime) -> ApiKey | None:
        """The live key that `secret` is, or None. The look-up is by digest, so it leaks no timing."""
        return (
            self.live(at).select_related("project", "created_by").filter(digest=ApiKey.digest_of(secret)).first()
        )


class ApiKey(models.Model):
    """A program's credential: shown once, kept as a hash, revoked at once.

    The secret has 256 random bits, so an unsalted SHA-256 can't be searched for.
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

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["project", "-created_at"])]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @staticmethod
    def digest_of(secret: str) -> str:
        return hashlib.sha256(secret.encode()).hexdigest()

    @classmethod
    def issue(
        cls,
        project: Project,
        *,
        name: str,
        scopes: list[str],
        by: User | None,
        expires_at: datetime | None = None,
        purpose: str = Purpose.PROGRAM,
    ) -> tuple[ApiKey, str]:
        """Make a key; the second part of the answer is the only time its secret is seen."""
        prefix = f"tir_{secrets.token_hex(4)}"
        secret = f"{prefix}_{secrets.token_urlsafe(32)}"
        key = cls.objects.create(
            project=project,
            name=name,
            prefix=prefix,
            digest=cls.digest_of(secret),
            purpose=purpose,
            scopes=sorted(set(scopes)),
            expires_at=expires_at,
            created_by=by,
        )
        return key, secret

    def revoke(self, *, at: datetime) -> bool:
        """Refuse it from now on; True if this call was the one that did."""
        won = ApiKey.objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=at)
        return bool(won)

    @property
    def state(self) -> str:
        if self.revoked_at:
            return "revoked"
        if self.expires_at and self.expires_at <= timezone.now():
            return "expired"
        return "active"
