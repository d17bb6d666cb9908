"""What models were seen to use, against what was assumed of them: it corrects the next estimate."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import datetime, timedelta

from django.db import models
from django.db.models import Q

from accounts.models import Project
from endpoints.models.catalogue import InstanceType
from endpoints.spec import SourceKind, SourceSpec

FRESH = timedelta(days=90)  # an older measure is of another version of everything
AGAIN = timedelta(days=7)  # a greater one replaces it at once, a smaller one after this
NOT_THE_MODEL = {"token_secret", "username", "access_key", "host_key", "revision", "file"}


def model_digest(source: SourceSpec, revision: str, file: str, project: Project) -> str:
    """Names a pinned model wherever it is deployed; registry names mean different models in different projects."""
    told = {name: value for name, value in asdict(source).items() if name not in NOT_THE_MODEL}
    told |= {"pinned": revision, "main": file}
    told |= {"project": project.pk} if source.kind == SourceKind.REGISTRY else {}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def device_name(machine: InstanceType) -> str:
    return machine.gpu if machine.has_gpu else "cpu"


class MeasuredMemory(models.Model):
    """Per model, type and device: the greatest use of one instance, and how much it was above the assumption.

    That holds for other lengths and numbers of sequences, whose cache and batches are counted; it is less than 0
    where too much is assumed.
    """

    model = models.CharField(max_length=64)  # model_digest
    engine = models.CharField(max_length=20)
    data_type = models.CharField(max_length=12)
    device = models.CharField(max_length=40)
    correction_bytes = models.BigIntegerField()
    used_bytes = models.BigIntegerField()
    measured_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "engine", "data_type", "device"], name="measured_once"),
        ]

    def __str__(self) -> str:
        return f"{self.engine} {self.data_type} on {self.device}: {self.used_bytes} bytes"

    @classmethod
    def known(cls, model: str, engine: str, data_type: str, machine: InstanceType, *, at: datetime) -> int | None:
        """The correction in bytes; None if it was never measured, or too long ago."""
        rows = cls.objects.filter(model=model, engine=engine, data_type=data_type, device=device_name(machine))
        return rows.filter(measured_at__gt=at - FRESH).values_list("correction_bytes", flat=True).first()

    @classmethod
    def by_device(cls, model: str, engine: str, data_type: str, *, at: datetime) -> dict[str, int]:
        """The correction by the name of the device, in one query for all that were measured."""
        rows = cls.objects.filter(model=model, engine=engine, data_type=data_type, measured_at__gt=at - FRESH)
        return dict(rows.values_list("device", "correction_bytes"))

    @classmethod
    def note(
        cls,
        model: str,
        engine: str,
        data_type: str,
        machine: InstanceType,
        *,
        correction: int,
        used: int,
        at: datetime,
    ) -> bool:
        """Keep it if it is greater than what is known, or that is old. True if it was kept."""
        what = {"model": model, "engine": engine, "data_type": data_type, "device": device_name(machine)}
        values = {"correction_bytes": correction, "used_bytes": used, "measured_at": at}
        row, new = cls.objects.get_or_create(**what, defaults=values)
        if new:
            return True
        stale = Q(correction_bytes__lt=values["correction_bytes"]) | Q(measured_at__lt=at - AGAIN)
        return bool(cls.objects.filter(stale, pk=row.pk).update(**values))
