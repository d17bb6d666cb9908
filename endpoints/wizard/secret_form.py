"""Storing a secret from within the wizard."""

from __future__ import annotations

from typing import Any

from django import forms

from accounts.models import Project
from endpoints.models import Secret
from endpoints.secret_forms import WriteOnly
from endpoints.wizard.fields import PLAIN


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
        max_length=32_768,
        strip=False,
        widget=WriteOnly(attrs=PLAIN | {"rows": 3, "class": "mono secret-text"}),
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

    def clean_value(self) -> str:
        """Browsers end lines as no key file does, and a token is copied with the end of its line."""
        value = str(self.cleaned_data["value"]).replace("\r\n", "\n")
        lines = value.strip("\n")
        if not lines:
            raise forms.ValidationError("The secret needs a value.")
        return value if "\n" in lines else lines

    @property
    def variable(self) -> str:
        """The name a variable for it would have: hub-token → HUB_TOKEN."""
        return str(self.cleaned_data["name"]).upper().replace("-", "_")

    def store(self, *, by: Any) -> Secret:
        name, value = self.cleaned_data["name"], self.cleaned_data["value"]
        return Secret.store(self.project, name, value, by=by)
