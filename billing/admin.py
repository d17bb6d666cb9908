"""Administration of prices."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from billing.models import Price


@admin.register(Price)
class PriceAdmin(admin.ModelAdmin[Price]):
    """A price that has held is what bills are made of: it is followed by a new one, never changed."""

    list_display = ("__str__", "unit", "instance_type", "amount", "currency", "valid_from")
    list_filter = ("unit", "instance_type")
    list_select_related = ("instance_type",)

    def has_change_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        return super().has_change_permission(request, obj) and not _held(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not _held(obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Without the bulk deletion, which would ask nobody about a single row."""
        return {name: action for name, action in super().get_actions(request).items() if name != "delete_selected"}


def _held(price: Price | None) -> bool:
    return price is not None and price.valid_from <= timezone.now()
