"""Prices, each with the moment it holds from."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils import timezone

from endpoints.models import InstanceType


class Unit(models.TextChoices):
    INSTANCE_HOUR = "instance_hour", "Instance hour"
    REQUEST = "request", "Request"


class PriceQuerySet(models.QuerySet["Price"]):
    def at(self, moment: datetime) -> PriceQuerySet:
        """Those that hold at a moment: the newest of each unit and instance type."""
        return (
            self.filter(valid_from__lte=moment)
            .order_by("unit", "instance_type_id", "-valid_from")
            .distinct("unit", "instance_type_id")
        )


class Price(models.Model):
    """What a unit costs from a moment on. A change is a new row, so that the past keeps its price."""

    unit = models.CharField(max_length=16, choices=Unit.choices)
    instance_type = models.ForeignKey(InstanceType, models.PROTECT, null=True, blank=True, related_name="prices")
    amount = models.DecimalField(max_digits=12, decimal_places=4)
    currency = models.CharField(max_length=3, default="INR")
    valid_from = models.DateTimeField(default=timezone.now)

    objects = PriceQuerySet.as_manager()

    class Meta:
        ordering = ["unit", "instance_type", "-valid_from"]
        constraints = [
            models.UniqueConstraint(
                fields=["unit", "instance_type", "valid_from"], name="price_once", nulls_distinct=False
            ),
            models.CheckConstraint(condition=Q(amount__gte=0), name="price_not_negative"),
            models.CheckConstraint(
                condition=Q(unit=Unit.REQUEST, instance_type=None)
                | Q(unit=Unit.INSTANCE_HOUR, instance_type__isnull=False),
                name="price_of_what",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.instance_type or self.get_unit_display()}: {self.amount} {self.currency}"
