"""People, the projects they share, and the keys their programs call with."""

from accounts.models.allowance import Allowance
from accounts.models.audit import AuditEntry
from accounts.models.invitation import Invitation
from accounts.models.key import ApiKey, Purpose, Scope
from accounts.models.project import Membership, Project
from accounts.models.service import ServiceAccount
from accounts.models.signing import SigningKey
from accounts.models.user import People, User, _known_timezone

__all__ = [
    "Allowance",
    "ApiKey",
    "AuditEntry",
    "Invitation",
    "Membership",
    "People",
    "Project",
    "Purpose",
    "Scope",
    "ServiceAccount",
    "SigningKey",
    "User",
    "_known_timezone",  # the first migration names it
]
