"""What instances ran out of: the next estimate of the same model never says that as much is enough."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Greatest

from endpoints.memory import Floor
from endpoints.models.catalogue import InstanceType
from endpoints.models.measured import FRESH, device_name

LONG_ENOUGH = timedelta(days=1)  # of a life with as much memory, to stand against any that ended


class MemoryFloor(models.Model):
    """Per model, type and device, as measured: the end that tells most of the need. See endpoints.memory.Floor.

    `lived`: the longest of the instances that ended so; one that runs with no more, and for longer, refutes it.
    """

    model = models.CharField(max_length=64)  # model_digest
    engine = models.CharField(max_length=20)
    data_type = models.CharField(max_length=12)
    device = models.CharField(max_length=40)
    limit_bytes = models.BigIntegerField()
    length = models.PositiveIntegerField()
    concurrency = models.PositiveIntegerField()
    above_bytes = models.BigIntegerField(null=True)
    lived = models.DurationField()
    ended_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "engine", "data_type", "device"], name="memory_floor_once"),
        ]

    def __str__(self) -> str:
        return f"{self.engine} {self.data_type} on {self.device}: more than {self.limit_bytes} bytes"

    @property
    def floor(self) -> Floor:
        return Floor(self.limit_bytes, self.length, self.concurrency, self.ended_at.date(), self.above_bytes)

    @classmethod
    def known(
        cls, model: str, engine: str, data_type: str, machine: InstanceType, *, at: datetime
    ) -> MemoryFloor | None:
        """None if none ran out of memory, or too long ago."""
        return cls._fresh(model, engine, data_type, at).filter(device=device_name(machine)).first()

    @classmethod
    def by_device(cls, model: str, engine: str, data_type: str, *, at: datetime) -> dict[str, Floor]:
        """By the name of the device, in one query."""
        return {row.device: row.floor for row in cls._fresh(model, engine, data_type, at)}

    @classmethod
    def _fresh(cls, model: str, engine: str, data_type: str, at: datetime) -> models.QuerySet[MemoryFloor]:
        return cls.objects.filter(model=model, engine=engine, data_type=data_type, ended_at__gt=at - FRESH)

    @classmethod
    def note(cls, *key: str, machine: InstanceType, floor: Floor, lived: timedelta, at: datetime) -> None:
        """Keep it if it tells more than what is known, or that is old; the same end again is one note.

        `key`: model, engine and data type.
        """
        what = dict(zip(("model", "engine", "data_type"), key, strict=True), device=device_name(machine))
        told = {name: value for name, value in asdict(floor).items() if name != "on"}
        row, new = cls.objects.get_or_create(**what, defaults=told | {"lived": lived, "ended_at": at})
        rows = cls.objects.filter(pk=row.pk)
        if not new and not rows.filter(**told).update(ended_at=at, lived=Greatest(F("lived"), Value(lived))):
            rows.filter(_less(floor) | Q(ended_at__lte=at - FRESH)).update(**told, lived=lived, ended_at=at)

    def refuted_by(self, started_at: datetime, ready_at: datetime, *, at: datetime) -> bool:
        """Whether a later life was long enough to count against it."""
        return started_at >= self.ended_at and at - ready_at > min(self.lived, LONG_ENOUGH)


def _less(floor: Floor) -> Q:
    """What tells less of the need."""
    if floor.above_bytes is None:
        return Q(above_bytes=None, limit_bytes__lt=floor.limit_bytes)
    return Q(above_bytes=None) | Q(above_bytes__lt=floor.above_bytes)
