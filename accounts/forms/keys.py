"""Forms of API keys and service accounts."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

from django import forms
from django.core.validators import MaxValueValidator, MinValueValidator
from django.utils import timezone

from accounts.models import Allowance, Project, Scope
from accounts.models.allowance import LIMITS
from accounts.models.service import NAME

CUSTOM = "date"
EXPIRIES = [("", "Never"), ("7", "In 7 days"), ("30", "In 30 days"), ("90", "In 90 days"),
            ("365", "In a year"), (CUSTOM, "On a day of your choice")]  # fmt: skip
ALL, SOME = "all", "some"
REACHES_ALL = "A key that manages reaches every endpoint."
NOW, BY_HAND = "0", ""
OVERLAPS = [("1", "In an hour"), ("24", "In 24 hours"), ("168", "In 7 days"), ("720", "In 30 days"),
            (NOW, "Now: revoke them"), (BY_HAND, "Not: I revoke them myself")]  # fmt: skip


class LifeForm(forms.Form):
    """How long a new secret works. One form makes one secret, however often it is sent."""

    request_id = forms.UUIDField(widget=forms.HiddenInput)
    expiry = forms.ChoiceField(label="Expires", choices=EXPIRIES, required=False)
    expires_on = forms.DateField(
        label="Last day",
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="It works to the end of that day in your time zone.",
    )

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if given.get("expiry") == CUSTOM and "expires_on" in given:
            day = given["expires_on"]
            if day is None:
                self.add_error("expires_on", "Choose the last day on which it shall work.")
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


class AllowanceForm(forms.Form):
    """What may be called, and how much of it; left alone it is everything without a limit."""

    reach = forms.ChoiceField(
        label="May call",
        choices=[(ALL, "Every endpoint of the project, also those made later"), (SOME, "Only these")],
        initial=ALL,
        required=False,
        widget=forms.RadioSelect,
    )
    endpoints = forms.TypedMultipleChoiceField(
        label="Endpoints", coerce=int, required=False, widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows = list(project.endpoints.living().order_by("name").values_list("pk", "name"))
        endpoints = self.fields["endpoints"]
        assert isinstance(endpoints, forms.ChoiceField)  # noqa: S101 (for the type checker)
        endpoints.choices = rows
        endpoints.help_text = "" if rows else "The project has no endpoints yet."
        for name, (label, highest) in LIMITS.items():
            self.fields[name] = _limit_field(label, highest)

    @property
    def narrowed(self) -> bool:
        """Whether something here wants to be seen: a value that is no default, or an error."""
        names = ("endpoints", *LIMITS)
        return self["reach"].value() == SOME or any(self[name].value() or self[name].errors for name in names)

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if given.get("reach") == SOME and "endpoints" in given and not given["endpoints"]:
            self.add_error("endpoints", "Choose at least one endpoint, or let it call every one.")
        return given

    def endpoint_ids(self) -> list[int] | None:
        return sorted(self.cleaned_data["endpoints"]) if self.cleaned_data["reach"] == SOME else None

    def limits(self) -> dict[str, int | None]:
        return {name: self.cleaned_data[name] for name in LIMITS}

    @staticmethod
    def initial_of(allowance: Allowance) -> dict[str, Any]:
        ids = allowance.endpoint_ids
        limits = {name: getattr(allowance, name) for name in LIMITS}
        return {"reach": ALL if ids is None else SOME, "endpoints": ids or [], **limits}


def _limit_field(label: str, highest: int) -> forms.IntegerField:
    said = f"From 1 to {highest:,}, or empty for no limit."
    return forms.IntegerField(
        label=label,
        required=False,
        help_text="Empty is no limit.",
        validators=[MinValueValidator(1, said), MaxValueValidator(highest, said)],
        widget=forms.NumberInput(attrs={"min": 1, "max": highest}),
        error_messages={"invalid": "Enter a whole number, or nothing for no limit."},
    )


class KeyForm(LifeForm, AllowanceForm):
    """`may_manage` False takes the scope that only admins may give out of the choices."""

    name = forms.CharField(
        label="Name",
        max_length=80,
        help_text="Where it will be used, such as “checkout service”.",
        error_messages={"required": "Give the key a name, so that others know what uses it."},
    )
    scopes = forms.MultipleChoiceField(
        label="What it may do", initial=[Scope.INFERENCE], widget=forms.CheckboxSelectMultiple
    )
    field_order = ["request_id", "name", "scopes", "expiry", "expires_on", "reach", "endpoints"]

    def __init__(self, *args: Any, may_manage: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(Scope.INFERENCE, "Inference: call the project's endpoints")]
        if may_manage:
            choices.append((Scope.MANAGE, "Manage: create, scale and delete endpoints through the REST API"))
        scopes = self.fields["scopes"]
        assert isinstance(scopes, forms.MultipleChoiceField)  # noqa: S101 (for the type checker)
        scopes.choices = choices

    def clean(self) -> dict[str, Any]:
        given = super().clean()
        if given.get("reach") == SOME and Scope.MANAGE in given.get("scopes", ()):
            self.add_error("reach", f"{REACHES_ALL} Let it call every one, or take “Manage” away.")
        return given


class ChangeKeyForm(AllowanceForm):
    """What a key may call from here on; `manages` if it may manage."""

    def __init__(self, *args: Any, manages: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.manages = manages

    def clean(self) -> dict[str, Any]:
        given = super().clean()
        if given.get("reach") == SOME and self.manages:
            self.add_error("reach", REACHES_ALL)
        return given


class ChangeAccountForm(AllowanceForm):
    description = forms.CharField(
        label="Description", max_length=200, required=False, help_text="What it is for, and who looks after it."
    )
    field_order = ["description", "reach", "endpoints"]


class AccountForm(LifeForm, ChangeAccountForm):
    name = forms.CharField(
        label="Name",
        max_length=60,
        validators=[NAME],
        error_messages={"required": "Give the account a name, such as the program’s."},
        help_text="Small letters, digits and hyphens, such as “checkout”.",
    )
    field_order = ["request_id", "name", "description", "expiry", "expires_on", "reach", "endpoints"]


class RotateForm(LifeForm):
    """When the credentials that are there stop to work."""

    old = forms.ChoiceField(label="The old ones stop", choices=OVERLAPS, initial="24", required=False)
    field_order = ["request_id", "old", "expiry", "expires_on"]

    def old_until(self, at: datetime) -> datetime | None:
        hours = self.cleaned_data["old"]
        return None if hours == BY_HAND else at + timedelta(hours=int(hours))
