"""How many instances an endpoint has: the policy's columns, and the verbs that change the number or the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta

from django.db import models, transaction
from django.db.models import F
from django.utils import timezone

from accounts.refused import Refused
from endpoints.models.desired import By, Desires
from endpoints.models.event import Severity
from endpoints.spec import LIMITS, ScalingSpec
from endpoints.status import Desired

POLICY = tuple(one.name for one in fields(ScalingSpec) if one.name != "billing_model")
HOLDS = (15, 60, 240)  # minutes that an emergency may last
USUAL_HOLD = 60


class Scaled(Desires):
    """The part of an endpoint that is about its number of instances.

    Until `emergency_until`, automatic scaling keeps at least `emergency_instances`.
    """

    wanted = models.PositiveSmallIntegerField(default=1)
    min_instances = models.PositiveSmallIntegerField(default=1)
    max_instances = models.PositiveSmallIntegerField(default=10)
    target_concurrency = models.PositiveSmallIntegerField(default=10)
    scale_up_threshold = models.PositiveSmallIntegerField(default=80)
    scale_down_delay = models.PositiveSmallIntegerField(default=300)
    warm_spare = models.PositiveSmallIntegerField(default=0)
    emergency_instances = models.PositiveSmallIntegerField(default=0)
    emergency_until = models.DateTimeField(null=True)

    class Meta:
        abstract = True

    @property
    def policy(self) -> dict[str, int]:
        return {name: int(getattr(self, name)) for name in POLICY}

    def held(self, at: datetime) -> int:
        """How many an emergency holds at this moment; 0 where none does."""
        return self.emergency_instances if self.emergency_until and at < self.emergency_until else 0

    @transaction.atomic
    def scale(self, instances: int, *, by: By, at: datetime | None = None) -> bool:
        """Want this many instances. False when that many were wanted already. Raises Refused out of range.

        Fewer than an emergency holds end it.
        """
        at = at or timezone.now()
        self._lock_running("scale")
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
        ends = instances < self.held(at)
        self._wish(by, at, wanted=instances, **(NO_EMERGENCY if ends else {}))
        said = f"Scaled from {before} to {instances} instances."
        said += " That ends the emergency." if ends else ""
        self.record("endpoint.scaled", by=by, at=at, before=str(before), after=str(instances), message=said)
        return True

    @transaction.atomic
    def emergency_scale(
        self, instances: int | None = None, *, minutes: int = USUAL_HOLD, by: By, at: datetime | None = None
    ) -> None:
        """Want so many at once, or as many as are allowed, and let automatic scaling take none back for `minutes`.

        Neither the load is asked nor a step bounded. Raises Refused out of range, and where the number never
        follows the load.
        """
        at = at or timezone.now()
        self._lock_running("scale")
        instances = self.max_instances if instances is None else instances
        self._refuse_emergency(instances, minutes)
        before = self.wanted
        until = at + timedelta(minutes=minutes)
        self._wish(by, at, wanted=instances, emergency_instances=instances, emergency_until=until)
        said = f"Emergency: {instances} instances at once instead of {before}, held for {minutes} minutes."
        self.record("endpoint.emergency", by=by, at=at, before=str(before), after=str(instances),
                    severity=Severity.WARN, message=said)  # fmt: skip

    def _refuse_emergency(self, instances: int, minutes: int) -> None:
        if minutes not in HOLDS:
            said = f"Hold them for {', '.join(str(one) for one in HOLDS)} minutes; you gave {minutes}."
            raise Refused(said, field="minutes", code="out_of_range")
        if self.min_instances == self.max_instances:
            said = f"This endpoint always has {self.max_instances}. Raise max instances in its scaling policy."
            raise Refused(said, field="instances", code="out_of_range")
        least = max(1, self.wanted)
        if not least <= instances <= self.max_instances:
            said = f"Choose from {least}, as many as are wanted now, to {self.max_instances}, the maximum."
            raise Refused(said, field="instances", code="out_of_range")

    @transaction.atomic
    def end_emergency(self, *, by: By, at: datetime | None = None) -> bool:
        """Let automatic scaling take instances back again. False when no emergency holds any."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        if not self.held(at):
            return False
        self._rewrite(**NO_EMERGENCY)
        said = "The emergency was ended. Automatic scaling takes back what the load didn't need."
        self.record("endpoint.emergency_ended", by=by, at=at, message=said)
        return True

    @transaction.atomic
    def update_scaling(self, *, by: By, at: datetime | None = None, **changes: int) -> bool:
        """Change columns of the scaling policy, without a deployment; what is wanted moves into the new limits.
        False when nothing differs. Raises Refused out of the specification's ranges."""
        at = at or timezone.now()
        self._lock()
        self._refuse_if_deleted()
        before, after = self.policy, self.policy | changes
        refuse_policy(after, given=changes)
        said = [f"{label_of(name)} {before[name]} → {new}" for name, new in changes.items() if new != before[name]]
        if not said:
            return False
        most = after["max_instances"]
        least = max(after["min_instances"], min(changes.get("warm_spare", 0), most))
        wanted = max(least, min(self.wanted, most))
        said += [f"wanted {self.wanted} → {wanted}"] if wanted != self.wanted else []
        self._rewrite(wanted=wanted, emergency_instances=min(self.emergency_instances, most), **changes)
        self.record("endpoint.scaling_updated", by=by, at=at, message=f"Scaling policy: {', '.join(said)}.")
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

    @transaction.atomic
    def wake(self, *, why: str, at: datetime | None = None) -> bool:
        """Want instances again where none is wanted, because somebody calls. False if it is awake, and where only
        a person can make it run: stopped, deleted, or halted. As with `autoscale`, no person wished it.
        """
        at = at or timezone.now()
        self._lock()
        if self.wanted or self.desired != Desired.RUNNING or self.halted_at:
            return False
        self.wanted, self.generation = max(1, self.min_instances), self.generation + 1
        self.save(update_fields=["wanted", "generation"])
        self.record("endpoint.woken", at=at, before="0", after=str(self.wanted), message=why)
        self._ring()
        return True

    def _lock_running(self, verb: str) -> None:
        self._lock()
        self._refuse_if_deleted()
        if self.desired != Desired.RUNNING:
            raise Refused(f"The endpoint is stopped. Start it first, then {verb} it.", code="stopped")

    def _rewrite(self, **columns: int | datetime | None) -> None:
        """Write columns of the policy: unlike a wish, it leaves the crash budget as it is."""
        type(self)._default_manager.filter(pk=self.pk).update(generation=F("generation") + 1, **columns)
        self._lock()
        self._ring()


NO_EMERGENCY: Mapping[str, int | None] = {"emergency_until": None, "emergency_instances": 0}


def label_of(column: str) -> str:
    return column.replace("_", " ")


def refuse_policy(policy: Mapping[str, int], *, given: Mapping[str, int]) -> None:
    """Raises Refused at the one of `given` that is out of its range or can't stand with another."""
    for name, value in given.items():
        low, high, _ = LIMITS[name]
        if not low <= value <= high:
            said = f"{label_of(name).capitalize()} must be from {low:g} to {high:g}; you gave {value}."
            raise Refused(said, field=name, code="out_of_range")
    least, most, spare = (policy[name] for name in ("min_instances", "max_instances", "warm_spare"))
    if least > most:
        said = f"Max instances must not be below min instances; {most} is less than {least}."
        raise Refused(said, field="max_instances", code="out_of_range")
    if spare and spare >= most:
        said = f"Warm spare must be below max instances, {most}, so that one may work; you gave {spare}."
        raise Refused(said, field="warm_spare" if "warm_spare" in given else "max_instances", code="out_of_range")
