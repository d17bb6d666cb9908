"""How a wish is written: the row held, the crash budget opened anew, an event with its maker, bells rung."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import F
from django.utils import timezone

from accounts.models import ApiKey, User
from accounts.refused import Refused
from endpoints import bell
from endpoints.models.event import Event, actor_fields
from endpoints.status import Desired

By = User | ApiKey | None
PAGES = ("status", "timeline", "instances", "events", "actions")


class Desires(models.Model):
    """The part of an endpoint that every verb of people and programs writes through."""

    desired = models.CharField(max_length=10, choices=Desired.choices, default=Desired.RUNNING)
    generation = models.PositiveIntegerField(default=1)
    wished_at = models.DateTimeField(default=timezone.now)
    wished_by = models.CharField(max_length=160, blank=True)
    restarted_at = models.DateTimeField(null=True)
    halted_at = models.DateTimeField(null=True)  # the crash budget is spent: nothing more is started
    halted_reason = models.CharField(max_length=60, blank=True)
    halted_message = models.TextField(blank=True)
    project_id: int

    class Meta:
        abstract = True

    def record(self, kind: str, *, by: By = None, at: datetime | None = None, **fields: Any) -> Event:
        """Write an event of this endpoint."""
        return Event.objects.create(
            project_id=self.project_id,
            endpoint_id=self.pk,
            kind=kind,
            at=at or timezone.now(),
            **actor_fields(by),
            **fields,
        )

    def _lock(self) -> None:
        """Hold the row until the transaction ends, and look at it as it is."""
        fresh = type(self)._default_manager.select_for_update(of=("self",)).get(pk=self.pk)
        self.__dict__.update({name: value for name, value in fresh.__dict__.items() if name != "_state"})

    def _refuse_if_deleted(self) -> None:
        if self.desired == Desired.DELETED:
            raise Refused("The endpoint is being deleted.", code="deleted")

    def _wish(self, by: By, at: datetime, **columns: Any) -> None:
        """Write desired columns, open the crash budget anew, and ring everybody."""
        columns |= {"halted_at": None, "halted_reason": "", "halted_message": ""}
        columns |= {"wished_at": at, "wished_by": str(by or "")}
        for name, value in columns.items():
            setattr(self, name, value)
        type(self)._default_manager.filter(pk=self.pk).update(generation=F("generation") + 1, **columns)
        self.generation += 1
        self._ring()

    def _ring(self) -> None:
        bell.ring_controller(self.pk)
        bell.ring_gateway()
        bell.ring_pages(self.project_id, self.pk, PAGES)
