"""Storing a secret from within the wizard."""

from __future__ import annotations

from typing import Any

from django import forms

from accounts.models import Project
from endpoints.models import Secret


class SecretForm(forms.Form):
    """The value goes straight into its encrypted column; no draft, page or message ever holds it."""

    name = forms.CharField(
        label="Name",
        max_length=80,
        validators=Secret._meta.get_field("name").validators,
        error_messages={"required": "The secret needs a name."},
    )
    value = forms.CharField(
        label="Value",
        max_length=10_000,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        error_messages={"required": "The secret needs a value."},
    )

    def __init__(self, data: Any = None, *, project: Project) -> None:
        super().__init__(data, auto_id="id_secret_%s")
        self.project = project

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if Secret.objects.filter(project=self.project, name=name).exists():
            raise forms.ValidationError(f"There is a secret “{name}” already. Choose another name.")
        return name

    @property
    def variable(self) -> str:
        """The name a variable for it would have: hub-token → HUB_TOKEN."""
        return str(self.cleaned_data["name"]).upper().replace("-", "_")

    def store(self, *, by: Any) -> Secret:
        name, value = self.cleaned_data["name"], self.cleaned_data["value"]
        return Secret.store(self.project, name, value, by=by)
