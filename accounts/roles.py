"""Who may do what in a project. One table, read by querysets, pages, REST and sockets alike."""

from enum import StrEnum

from django.db import models


class Role(models.TextChoices):
    OWNER = "owner", "Owner"
    ADMIN = "admin", "Admin"
    DEVELOPER = "developer", "Developer"
    VIEWER = "viewer", "Viewer"
    BILLING = "billing", "Billing"


class Right(StrEnum):
    VIEW = "view"  # see endpoints, models, charts, events
    LOGS = "logs"  # read logs, which can hold what callers sent
    OPERATE = "operate"  # deploy, scale, stop, delete; secrets; inference keys
    ADMINISTER = "administer"  # members, keys that manage
    BILLING = "billing"  # costs and invoices in full


RIGHTS: dict[Right, frozenset[Role]] = {
    Right.VIEW: frozenset(Role),
    Right.LOGS: frozenset({Role.OWNER, Role.ADMIN, Role.DEVELOPER, Role.VIEWER}),
    Right.OPERATE: frozenset({Role.OWNER, Role.ADMIN, Role.DEVELOPER}),
    Right.ADMINISTER: frozenset({Role.OWNER, Role.ADMIN}),
    Right.BILLING: frozenset({Role.OWNER, Role.ADMIN, Role.BILLING}),
}

WHAT_ROLES_DO: dict[Role, str] = {
    Role.OWNER: "Everything, and the project itself.",
    Role.ADMIN: "Everything but handing over the project.",
    Role.DEVELOPER: "Deploys, scales, stops and deletes endpoints; keeps secrets and keys.",
    Role.VIEWER: "Sees everything but changes nothing.",
    Role.BILLING: "Sees endpoints and their cost; reads no logs.",
}
