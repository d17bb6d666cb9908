"""Projects, and who is in them as what."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.text import slugify

from accounts import bell
from accounts.models.audit import AuditEntry
from accounts.models.user import User
from accounts.refused import Refused
from accounts.roles import RIGHTS, Right, Role

if TYPE_CHECKING:
    from accounts.models.key import ApiKey

RESERVED_SLUGS = {"new"}


class ProjectQuerySet(models.QuerySet["Project"]):
    def where(self, user: Any, right: Right) -> ProjectQuerySet:
        """The projects in which `user` holds `right`; none for a stranger or nobody."""
        if not user.is_authenticated:
            return self.none()
        held = Membership.objects.filter(user=user, role__in=RIGHTS[right]).values("project_id")
        return self.filter(pk__in=held)

    def visible_to(self, user: Any) -> ProjectQuerySet:
        return self.where(user, Right.VIEW)


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

    @transaction.atomic
    def rename(self, name: str, *, by: User) -> bool:
        """Show another name; the address keeps its slug, so that links hold. False if it had that name."""
        before = Project.objects.select_for_update().get(pk=self.pk).name
        if before == name:
            return False
        self.name = name
        self.save(update_fields=["name"])
        self.note("project.renamed", f"Renamed the project from “{before}” to “{name}”.", by=by)
        return True

    def note(self, what: str, message: str, *, by: User | ApiKey | None) -> AuditEntry:
        """Write an act on this project's people or keys into its audit."""
        return AuditEntry.write(what, message, by=by, project=self)

    def role_of(self, user: Any) -> Role | None:
        if not user.is_authenticated:
            return None
        found = self.memberships.filter(user=user).values_list("role", flat=True).first()
        return Role(found) if found else None

    def allows(self, user: Any, right: Right) -> bool:
        return self.role_of(user) in RIGHTS[right]


class Membership(models.Model):
    """A person's role in a project. Every project has an owner; its verbs hold the project's row to keep it so."""

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

    @transaction.atomic
    def change_role(self, role: str, *, by: User) -> bool:
        """Give this member another role. False if it was theirs already. Raises Refused."""
        acting = self._lock(by)
        refuse_owner_business(acting, self.role, role)
        if self.role == role:
            return False
        if self.role == Role.OWNER:
            self._refuse_last_owner("be given another role")
        before, self.role = self.get_role_display(), Role(role).value
        self.save(update_fields=["role"])
        self.project.note(
            "member.role_changed",
            f"Changed {self.user.email} from {before} to {self.get_role_display()}.",
            by=by,
        )
        bell.ring_gateway()  # tokens of somebody who may no longer call are refused
        return True

    @transaction.atomic
    def remove(self, *, by: User) -> None:
        """End this membership, by somebody else or by the member. Raises Refused for the last owner."""
        acting = self._lock(by)
        leaving = by.pk == self.user_id
        if not leaving:
            refuse_owner_business(acting, self.role)
        if self.role == Role.OWNER:
            self._refuse_last_owner("leave" if leaving else "be removed")
        what, message = ("member.left", "Left the project.") if leaving else (
            "member.removed", f"Removed {self.user.email} ({self.get_role_display()})."
        )  # fmt: skip
        self.project.note(what, message, by=by)
        self.delete()
        bell.ring_gateway()

    def _lock(self, by: User) -> Role | None:
        """Hold the project's row till the transaction ends, look at the facts anew; the actor's role now."""
        Project.objects.select_for_update().get(pk=self.project_id)
        self.refresh_from_db(fields=["role"])
        return self.project.role_of(by)

    def _refuse_last_owner(self, what: str) -> None:
        others = self.project.memberships.filter(role=Role.OWNER).exclude(pk=self.pk)
        if not others.exists():
            raise Refused(
                f"The last owner can't {what}. Make somebody else an owner first.", field="role", code="last_owner"
            )


def refuse_owner_business(acting: Role | None, *roles: str) -> None:
    """Members are administered by owners and admins, but owners only by owners. Raises Refused."""
    if acting not in RIGHTS[Right.ADMINISTER]:
        raise Refused("Only owners and admins change members.", code="not_allowed")
    if Role.OWNER in roles and acting != Role.OWNER:
        raise Refused("Only an owner can make, change or remove an owner.", field="role", code="owners_only")
