"""Administration of people and projects, for staff."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm
from django.http import HttpRequest

from accounts.models import (
    ApiKey,
    AuditEntry,
    Invitation,
    Membership,
    Project,
    ServiceAccount,
    SigningKey,
    User,
)

admin.site.site_header = admin.site.site_title = "TIR console administration"


class PersonCreation(AdminUserCreationForm[User]):
    class Meta:
        model = User
        fields = ("email", "name")


@admin.register(User)
class PersonAdmin(UserAdmin[User]):
    add_form = PersonCreation
    ordering = ("email",)
    list_display = ("email", "name", "is_active", "is_staff", "last_login")
    search_fields = ("email", "name")
    readonly_fields = ("last_login", "date_joined", "email_confirmed_at")
    fieldsets = (
        (None, {"fields": ("email", "password", "name", "timezone")}),
        ("Rights here", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("Dates", {"fields": ("last_login", "date_joined", "email_confirmed_at")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "name", "usable_password", "password1", "password2")}),)
    list_filter = ("is_active", "is_staff")
    filter_horizontal = ()


class MembershipInline(admin.TabularInline[Membership, Project]):
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


@admin.register(Project)
class ProjectAdmin(admin.ModelAdmin[Project]):
    list_display = ("name", "slug", "created_at")
    search_fields = ("name", "slug")
    readonly_fields = ("slug", "created_at")
    inlines = (MembershipInline,)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # a project begins with an owner: Project.start


@admin.register(Membership)
class MembershipAdmin(admin.ModelAdmin[Membership]):
    list_display = ("project", "user", "role", "created_at")
    list_filter = ("role",)
    list_select_related = ("project", "user")
    search_fields = ("project__name", "user__email")
    autocomplete_fields = ("project", "user")


class ReadOnly(admin.ModelAdmin[Any]):
    """Rows that are evidence: looked at, never edited here."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnly):
    list_display = ("name", "prefix", "project", "scopes", "purpose", "state", "last_used_at")
    list_filter = ("purpose",)
    list_select_related = ("project",)
    search_fields = ("name", "prefix", "project__slug")
    exclude = ("digest", "request_id")


@admin.register(ServiceAccount)
class ServiceAccountAdmin(ReadOnly):
    list_display = ("name", "project", "description", "disabled_at", "created_at")
    list_select_related = ("project",)
    search_fields = ("name", "project__slug")


@admin.register(SigningKey)
class SigningKeyAdmin(ReadOnly):
    list_display = ("kid", "valid_from", "retired_at")
    exclude = ("public", "sealed")


@admin.register(Invitation)
class InvitationAdmin(ReadOnly):
    list_display = ("email", "project", "role", "created_at")
    list_select_related = ("project",)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly):
    list_display = ("at", "project", "who_text", "message")
    list_select_related = ("project",)
    date_hierarchy = "at"
