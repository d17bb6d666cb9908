"""The one way into a project's pages: a stranger finds nothing, a member without the right is refused."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404

from accounts.models import Membership
from accounts.roles import RIGHTS, Right

REFUSALS = {
    Right.VIEW: "see this project",
    Right.LOGS: "read logs",
    Right.OPERATE: "change endpoints, keys and secrets",
    Right.ADMINISTER: "change members and keys that manage",
    Right.BILLING: "see costs in full",
}


def membership(user: Any, slug: str, right: Right) -> Membership:
    """Their membership with its project. Raises Http404 for a stranger, PermissionDenied without the right."""
    found = Membership.objects.select_related("project").filter(user=user, project__slug=slug).first()
    if found is None:
        raise Http404("No such project, or you are not a member of it.")
    if found.role not in RIGHTS[right]:
        raise PermissionDenied(f"Your role, {found.get_role_display()}, may not {REFUSALS[right]}.")
    return found


def may(found: Membership, right: Right) -> bool:
    return found.role in RIGHTS[right]
