"""Administration of the catalogue; what runs is looked at here and changed on its own pages."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from accounts.admin import ReadOnly
from endpoints.models import Endpoint, Event, InstanceType, ModelVersion, Region, RegisteredModel, Secret


@admin.register(Region)
class RegionAdmin(ReadOnly):
    """Changed on its own page, which judges its settings before they are kept."""

    list_display = ("name", "slug", "runtime", "enabled", "capacity_at", "problem_at")


@admin.register(InstanceType)
class InstanceTypeAdmin(admin.ModelAdmin[InstanceType]):
    list_display = ("slug", "family", "vcpus", "memory_bytes", "gpu", "gpu_count", "enabled", "position")
    list_filter = ("family", "enabled")
    search_fields = ("slug",)


class VersionInline(admin.TabularInline[ModelVersion, RegisteredModel]):
    model = ModelVersion
    extra = 0
    fields = ("number", "path", "size_bytes", "created_at")
    readonly_fields = fields
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(RegisteredModel)
class RegisteredModelAdmin(admin.ModelAdmin[RegisteredModel]):
    list_display = ("name", "title", "project", "license")
    list_select_related = ("project",)
    search_fields = ("name", "title")
    inlines = (VersionInline,)


@admin.register(Endpoint)
class EndpointAdmin(ReadOnly):
    list_display = ("name", "project", "region", "status", "desired", "wanted", "created_at", "deleted_at")
    list_filter = ("status", "region")
    list_select_related = ("project", "region")
    search_fields = ("name", "project__slug")


@admin.register(Event)
class EventAdmin(ReadOnly):
    list_display = ("at", "project", "endpoint", "kind", "severity", "who", "message")
    list_filter = ("severity", "kind")
    list_select_related = ("project", "endpoint", "actor", "actor_key")
    date_hierarchy = "at"
    show_full_result_count = False


@admin.register(Secret)
class SecretAdmin(ReadOnly):
    """Names and dates; the value is on no page."""

    list_display = ("name", "project", "updated_at")
    list_select_related = ("project",)
    exclude = ("ciphertext",)
