"""Invitations to a project, by email address, whether or not an account has that address yet."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.core import signing
from django.db import models, transaction
from django.utils import timezone

from accounts.models.project import Membership, Project, refuse_owner_business
from accounts.models.user import User
from accounts.refused import Refused
from accounts.roles import Role

LIFETIME = timedelta(days=14)
SALT = "accounts.invitation"


class InvitationQuerySet(models.QuerySet["Invitation"]):
    def open(self, at: datetime) -> InvitationQuerySet:
        return self.filter(created_at__gt=at - LIFETIME)

    def by_token(self, token: str, at: datetime) -> Invitation | None:
        """The open invitation that a link carries, or None for a forged, old or withdrawn one."""
        try:
            pk = signing.loads(token, salt=SALT)
        except signing.BadSignature:
            return None
        return self.open(at).select_related("project", "invited_by").filter(pk=pk).first()


class Invitation(models.Model):
    """Waits until the person with this address takes it.

    An address that nobody has proven to be theirs opens nothing: such a person needs the link, which only
    the inviting side has. A confirmed address takes its invitations when it logs in.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="invitations")
    email = models.EmailField()
    role = models.CharField(max_length=12, choices=Role.choices, default=Role.DEVELOPER)
    invited_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    objects = InvitationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.UniqueConstraint(fields=["project", "email"], name="invitation_once")]

    def __str__(self) -> str:
        return f"{self.email} to {self.project} as {self.role}"

    @classmethod
    @transaction.atomic
    def send(cls, project: Project, email: str, role: str, *, by: User) -> Invitation:
        """Invite an address; inviting it again renews the offer. Says nothing of whether it has an account."""
        email = email.strip().lower()
        refuse_owner_business(project.role_of(by), role)
        if project.memberships.filter(user__email=email).exists():
            raise Refused(f"{email} is a member already.", field="email", code="member_already")
        invitation, _ = cls.objects.update_or_create(
            project=project,
            email=email,
            defaults={"role": role, "invited_by": by, "created_at": timezone.now()},
        )
        project.note("member.invited", f"Invited {email} as {invitation.get_role_display()}.", by=by)
        return invitation

    @transaction.atomic
    def withdraw(self, *, by: User) -> None:
        refuse_owner_business(self.project.role_of(by), self.role)
        self.project.note("member.uninvited", f"Withdrew the invitation of {self.email}.", by=by)
        self.delete()

    @transaction.atomic
    def accept(self, *, by: User) -> Membership:
        """Make `by` a member. Raises Refused if it is meant for somebody else or was taken or withdrawn."""
        if by.email != self.email:
            raise Refused(f"This invitation is for {self.email}. Log in with that address.", code="not_yours")
        if not Invitation.objects.select_for_update().filter(pk=self.pk).exists():
            raise Refused("This invitation was taken or withdrawn.", code="gone")
        membership, made = Membership.objects.get_or_create(
            project=self.project, user=by, defaults={"role": self.role}
        )
        if made:
            self.project.note("member.joined", f"Joined as {membership.get_role_display()}.", by=by)
        self.delete()
        return membership

    @classmethod
    def claim_all(cls, user: Any, *, at: datetime) -> list[Membership]:
        """At log-in: what waits for an address that its owner has confirmed; else nothing."""
        if user.email_confirmed_at is None:
            return []
        waiting = cls.objects.open(at).select_related("project").filter(email=user.email)
        return [invitation.accept(by=user) for invitation in waiting]

    @property
    def token(self) -> str:
        return signing.dumps(self.pk, salt=SALT)

    @property
    def expires_at(self) -> datetime:
        return self.created_at + LIFETIME
