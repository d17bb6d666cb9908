"""Forms of secrets: what was typed as a value never goes back into a page."""

from __future__ import annotations

from typing import Any

from django import forms

from endpoints.models import Secret


class WriteOnly(forms.Textarea):
    """Is always rendered empty, also after an error."""

    def format_value(self, value: Any) -> str:
        return ""


def value_field() -> forms.CharField:
    return forms.CharField(
        label="Value",
        strip=False,
        max_length=32_768,
        widget=WriteOnly(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
        help_text="Encrypted when stored; nobody can read it here again.",
    )


class SecretForm(forms.ModelForm[Secret]):
    value = value_field()

    class Meta:
        model = Secret
        fields = ["name", "description"]
        help_texts = {"name": "Small letters, digits and hyphens, such as “hf-token”."}

    field_order = ["name", "description", "value"]


class ValueForm(forms.Form):
    value = value_field()
