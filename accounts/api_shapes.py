"""Service accounts and tokens as the REST API takes and shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from ninja import Schema
from pydantic import ConfigDict, Field, StrictInt, StrictStr

from accounts.claims import LONGEST, SHORTEST, USUAL
from accounts.models import ApiKey, Project, ServiceAccount
from accounts.models.allowance import LIMITS, MOST_ENDPOINTS, endpoint_ids_of, words

DAY = 24 * 3600
LONGEST_OVERLAP = 90 * DAY
LONGEST_LIFE = 3650  # days


class TokenIn(Schema):
    """`endpoints` are names; left out, the token may call what its key may."""

    model_config = ConfigDict(extra="forbid")
    expires_in: StrictInt = Field(
        int(USUAL.total_seconds()), ge=int(SHORTEST.total_seconds()), le=int(LONGEST.total_seconds())
    )
    endpoints: list[StrictStr] | None = None


class TokenOut(Schema):
    token: str
    token_type: str = "Bearer"  # noqa: S105 (the name of a scheme)
    expires_in: int
    expires_at: datetime


class ReachIn(Schema):
    """`endpoints` null is every endpoint of the project; a limit that is null is none."""

    model_config = ConfigDict(extra="forbid")
    endpoints: list[StrictStr] | None = Field(None, min_length=1, max_length=MOST_ENDPOINTS)
    requests_per_minute: StrictInt | None = None
    tokens_per_minute: StrictInt | None = None
    concurrent_requests: StrictInt | None = None

    def limits(self) -> dict[str, int | None]:
        return {name: getattr(self, name) for name in LIMITS}

    def endpoint_ids(self, project: Project) -> list[int] | None:
        """Raises Refused for a name that is no endpoint's."""
        return None if self.endpoints is None else endpoint_ids_of(project, self.endpoints)

    def changes(self, project: Project) -> dict[str, Any]:
        """The columns that were given."""
        given = self.model_dump(exclude_unset=True, exclude={"endpoints"})
        return given | (
            {"endpoint_ids": self.endpoint_ids(project)} if "endpoints" in self.model_fields_set else {}
        )


class AllowanceIn(ReachIn):
    description: StrictStr = Field("", max_length=200)


class LifeIn(Schema):
    """How long a new credential works; null is until it is revoked."""

    expires_in_days: StrictInt | None = Field(None, ge=1, le=LONGEST_LIFE)

    def expires_at(self, at: datetime) -> datetime | None:
        return None if self.expires_in_days is None else at + timedelta(days=self.expires_in_days)


class AccountIn(AllowanceIn, LifeIn):
    name: StrictStr


class RotateIn(LifeIn):
    """`old_works_for` seconds after which the other credentials are refused: 0 is now, null leaves them be."""

    model_config = ConfigDict(extra="forbid")
    old_works_for: StrictInt | None = Field(DAY, ge=0, le=LONGEST_OVERLAP)

    def old_until(self, at: datetime) -> datetime | None:
        return None if self.old_works_for is None else at + timedelta(seconds=self.old_works_for)


class CredentialOut(Schema):
    id: int
    prefix: str
    state: str
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


class AccountOut(Schema):
    """`endpoints` null is every endpoint of the project; deleted ones are not listed."""

    name: str
    description: str
    disabled: bool
    endpoints: list[str] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None
    created_at: datetime
    credentials: list[CredentialOut]


class KeyOut(CredentialOut):
    """`endpoints` null is every endpoint of the project; deleted ones are not listed."""

    name: str
    scopes: list[str]
    endpoints: list[str] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None


class KeysOut(Schema):
    items: list[KeyOut]
    total: int
    page: int
    pages: int


class AccountsOut(Schema):
    items: list[AccountOut]
    total: int
    page: int
    pages: int


class MadeOut(Schema):
    """`secret` is shown this once."""

    account: AccountOut
    credential: CredentialOut
    secret: str


def shown(project: Project, accounts: Sequence[ServiceAccount]) -> list[AccountOut]:
    """Accounts with their credentials prefetched; one more query for the endpoints' names of all."""
    allowances = words(project, accounts)
    return [
        AccountOut(
            name=account.name,
            description=account.description,
            disabled=account.disabled_at is not None,
            endpoints=allowance.endpoints,
            created_at=account.created_at,
            credentials=[CredentialOut.from_orm(key) for key in account.credentials.all()],
            **{name: getattr(account, name) for name in LIMITS},
        )
        for account, allowance in zip(accounts, allowances, strict=True)
    ]


def shown_keys(project: Project, keys: Sequence[ApiKey]) -> list[KeyOut]:
    """Keys, none with its secret; one query for the endpoints' names of all."""
    same = (*CredentialOut.model_fields, "name", "scopes", *LIMITS)
    return [
        KeyOut(endpoints=allowance.endpoints, **{name: getattr(key, name) for name in same})
        for key, allowance in zip(keys, words(project, keys), strict=True)
    ]
