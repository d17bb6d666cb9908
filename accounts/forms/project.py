"""Forms of projects, their members and keys."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

from django import forms
from django.utils import timezone

from accounts.models import Project, Scope
from accounts.roles import Role

CUSTOM = "date"
EXPIRIES = [("", "Never"), ("7", "In 7 days"), ("30", "In 30 days"), ("90", "In 90 days"),
            ("365", "In a year"), (CUSTOM, "On a day of your choice")]  # fmt: skip


class ProjectForm(forms.ModelForm[Project]):
    class Meta:
        model = Project
        fields = ["name"]
        labels = {"name": "Project name"}


class RoleForm(forms.Form):
    role = forms.ChoiceField(label="Role", choices=Role.choices, initial=Role.DEVELOPER)


class InviteForm(RoleForm):
    email = forms.EmailField(label="Email", widget=forms.EmailInput(attrs={"autocomplete": "off"}))
    field_order = ["email", "role"]


class KeyForm(forms.Form):
    """`may_manage` False takes the scope that only admins may give out of the choices."""

    request_id = forms.UUIDField(widget=forms.HiddenInput)
    name = forms.CharField(
        label="Name", max_length=80, help_text="Where it will be used, such as “checkout service”."
    )
    scopes = forms.MultipleChoiceField(
        label="What it may do", initial=[Scope.INFERENCE], widget=forms.CheckboxSelectMultiple
    )
    expiry = forms.ChoiceField(label="Expires", choices=EXPIRIES, required=False)
    expires_on = forms.DateField(
        label="Last day",
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="It works to the end of that day in your time zone.",
    )

    def __init__(self, *args: Any, may_manage: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(Scope.INFERENCE, "Inference: call the project's endpoints")]
        if may_manage:
            choices.append((Scope.MANAGE, "Manage: create, scale and delete endpoints through the REST API"))
        scopes = self.fields["scopes"]
        assert isinstance(scopes, forms.MultipleChoiceField)  # noqa: S101 (for the type checker)
        scopes.choices = choices

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if given.get("expiry") == CUSTOM and "expires_on" in given:
            day = given["expires_on"]
            if day is None:
                self.add_error("expires_on", "Choose the last day on which the key shall work.")
            elif day < timezone.localdate():
                self.add_error("expires_on", "This day is over. Choose today or a later day.")
        return given

    def expires_at(self) -> datetime | None:
        """The first moment at which it no longer works."""
        expiry = self.cleaned_data["expiry"]
        if expiry == CUSTOM:
            midnight = datetime.combine(self.cleaned_data["expires_on"] + timedelta(days=1), time.min)
            return timezone.make_aware(midnight)
        return timezone.now() + timedelta(days=int(expiry)) if expiry else None
