"""How many instances an endpoint has: the policy's columns, and the verbs that change the number or the policy."""

from __future__ import annotations

from datetime import datetime

from django.db import models, transaction
from django.db.models import F
from django.utils import timezone

from accounts.refused import Refused
from endpoints.models.desired import By, Desires
from endpoints.spec import LIMITS
from endpoints.status import Desired


class Scaled(Desires):
    """The part of an endpoint that is about its number of instances."""

    wanted = models.PositiveSmallIntegerField(default=1)
    min_instances = models.PositiveSmallIntegerField(default=1)
    max_instances = models.PositiveSmallIntegerField(default=10)
    target_concurrency = models.PositiveSmallIntegerField(default=10)
    scale_up_threshold = models.PositiveSmallIntegerField(default=80)
    scale_down_delay = models.PositiveSmallIntegerField(default=300)

    class Meta:
        abstract = True

    @transaction.atomic
    def scale(self, instances: int, *, by: By, at: datetime | None = None) -> bool:
        """Want this many instances. False when that many were wanted already. Raises Refused out of range."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        if self.desired != Desired.RUNNING:
            raise Refused("The endpoint is stopped. Start it first, then scale it.", code="stopped")
        if not self.min_instances <= instances <= self.max_instances:
            raise Refused(
                f"Choose between {self.min_instances} and {self.max_instances} instances, "
                "the limits of this endpoint's scaling settings.",
                field="instances",
                code="out_of_range",
            )
        before = self.wanted
        if before == instances and not self.halted_at:
            return False
        self._wish(by, at, wanted=instances)
        self.record("endpoint.scaled", by=by, at=at, before=str(before), after=str(instances),
                    message=f"Scaled from {before} to {instances} instances.")  # fmt: skip
        return True

    @transaction.atomic
    def update_scaling(self, *, by: By, at: datetime | None = None, **changes: int) -> bool:
        """Change columns of the scaling policy, without a deployment; what is wanted moves into the new limits.
        False when nothing differs. Raises Refused out of the specification's ranges."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        before = {name: int(getattr(self, name)) for name in changes}
        policy = {"min_instances": self.min_instances, "max_instances": self.max_instances} | changes
        _refuse_policy(policy)
        said = [f"{label_of(name)} {before[name]} → {new}" for name, new in changes.items() if new != before[name]]
        if not said:
            return False
        wanted = max(policy["min_instances"], min(self.wanted, policy["max_instances"]))
        said += [f"wanted {self.wanted} → {wanted}"] if wanted != self.wanted else []
        type(self)._default_manager.filter(pk=self.pk).update(
            generation=F("generation") + 1, wanted=wanted, **changes
        )
        self._lock()
        self.record("endpoint.scaling_updated", by=by, at=at, message=f"Scaling policy: {', '.join(said)}.")
        self._ring()
        return True

    @transaction.atomic
    def autoscale(self, instances: int, *, why: str, generation: int, at: datetime | None = None) -> bool:
        """Want as many as the load needs. False if anybody wished something since that generation.

        No person wished it: who wished what, and the crash budget that a wish opens anew, stay as they are.
        """
        at = at or timezone.now()
        self._lock()
        if self.generation != generation or self.desired != Desired.RUNNING or self.halted_at:
            return False
        before = self.wanted
        if before == instances or not self.min_instances <= instances <= self.max_instances:
            return False
        self.wanted, self.generation = instances, generation + 1
        self.save(update_fields=["wanted", "generation"])
        self.record("endpoint.autoscaled", at=at, before=str(before), after=str(instances), message=why)
        self._ring()
        return True


def label_of(column: str) -> str:
    return column.replace("_", " ")


def _refuse_policy(policy: dict[str, int]) -> None:
    for name, value in policy.items():
        low, high, _ = LIMITS[name]
        if not low <= value <= high:
            said = f"{label_of(name).capitalize()} must be from {low:g} to {high:g}; you gave {value}."
            raise Refused(said, field=name, code="out_of_range")
    low, high = policy["min_instances"], policy["max_instances"]
    if low > high:
        said = f"Max instances must not be below min instances; {high} is less than {low}."
        raise Refused(said, field="max_instances", code="out_of_range")
