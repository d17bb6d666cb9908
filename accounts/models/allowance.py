"""What a credential may call, and how much of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models.project import Project
from accounts.refused import Refused

# column → (label, highest); the lowest is 1, None is no limit
LIMITS: dict[str, tuple[str, int]] = {
    "requests_per_minute": ("Requests a minute", 10_000_000),
    "tokens_per_minute": ("Tokens a minute", 1_000_000_000),
    "concurrent_requests": ("Requests at once", 100_000),
}
MOST_ENDPOINTS = 1000


class Allowance(models.Model):
    """`endpoint_ids` None is every endpoint of the project, also those made later. An id is never used again,
    so a new endpoint under the name of a deleted one isn't let in by an old list."""

    endpoint_ids = ArrayField(models.BigIntegerField(), null=True, blank=True)
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    concurrent_requests = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        abstract = True
        constraints = [
            models.CheckConstraint(
                condition=Q(endpoint_ids=None) | Q(endpoint_ids__len__gte=1),
                name="%(class)s_endpoint_ids_not_empty",
            ),
            *(
                models.CheckConstraint(
                    condition=Q(**{name: None}) | Q(**{f"{name}__gte": 1, f"{name}__lte": highest}),
                    name=f"%(class)s_{name}_range",
                )
                for name, (_, highest) in LIMITS.items()
            ),
        ]

    def limits_in_words(self) -> list[str]:
        """Such as “60 requests a minute”; empty for no limit."""
        found = ((label, getattr(self, name)) for name, (label, _) in LIMITS.items())
        return [f"{value:,} {label.lower()}" for label, value in found if value is not None]


def endpoint_ids_of(project: Project, names: Collection[str]) -> list[int]:
    """The ids of these living endpoints of the project. Raises Refused naming those that are not there."""
    wanted = set(names)
    found = dict(project.endpoints.living().filter(name__in=wanted).values_list("name", "pk"))
    missing = sorted(wanted - found.keys())
    if missing:
        raise Refused(
            f"There is no endpoint “{missing[0]}” in this project.", field="endpoints", code="no_endpoint"
        )
    return sorted(found.values())


def checked_limits(given: Mapping[str, int | None]) -> dict[str, int | None]:
    """The three columns of limits. Raises Refused for one out of its range."""
    for name, (label, highest) in LIMITS.items():
        value = given.get(name)
        if value is not None and not 1 <= value <= highest:
            said = f"{label} must be from 1 to {highest:,}, or nothing for no limit; you gave {value:,}."
            raise Refused(said, field=name, code="out_of_range")
    return {name: given.get(name) for name in LIMITS}


def names_of(project: Project, ids: Collection[int]) -> dict[int, str]:
    """The names of these endpoints, by id; a deleted one's is not among them."""
    rows: Any = project.endpoints.living().filter(pk__in=ids).values_list("pk", "name")
    return dict(rows)


@dataclass(frozen=True)
class InWords:
    """An allowance as a page shows it. `endpoints` None is every endpoint; deleted ones are left out."""

    endpoints: list[str] | None
    limits: list[str]


def words(project: Project, allowances: Iterable[Allowance]) -> list[InWords]:
    """In their order, with one query for the names of all."""
    rows = list(allowances)
    names = names_of(project, {pk for row in rows for pk in row.endpoint_ids or ()})
    return [
        InWords(
            None if row.endpoint_ids is None else sorted(names[pk] for pk in row.endpoint_ids if pk in names),
            row.limits_in_words(),
        )
        for row in rows
    ]
