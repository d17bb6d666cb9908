"""The traffic rules as a form of the endpoint's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from accounts.refused import Refused
from endpoints.models import Endpoint
from endpoints.models.admission import RANGES, UNLIMITED, origins_of


def _whole(name: str, label: str, unit: str, hint: str) -> forms.IntegerField:
    """A whole number within its range; of a limit that need not be, nothing for none."""
    _, low, high = RANGES[name]
    optional = name in UNLIMITED
    span = f"{low:,} to {high:,} {unit}"
    least = f"1 {unit.removesuffix('s')}" if low == 1 else f"{low:,} {unit}"
    otherwise = ", or nothing for no limit" if optional else ""
    return forms.IntegerField(
        label=label,
        required=not optional,
        min_value=low,
        max_value=high,
        error_messages={
            "required": f"{label} is missing. Give a whole number from {span}.",
            "invalid": f"{label} must be a whole number from {span}{otherwise}.",
            "min_value": f"{label} must be at least {least}{otherwise}; you gave %(show_value)s.",
            "max_value": f"{label} must be at most {high:,} {unit}; you gave %(show_value)s.",
        },
        help_text=f"{hint} {low:,} to {high:,}{', empty for no limit' if optional else ''}.",
        widget=forms.NumberInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )


class Origins(forms.CharField):
    """One origin a line."""

    widget = forms.Textarea(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        return typed(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        try:
            return origins_of(str(super().clean(value)).split())
        except Refused as refused:
            raise forms.ValidationError(str(refused), code=refused.code) from None


class AdmissionForm(forms.Form):
    requests_per_minute = _whole(
        "requests_per_minute", "Requests a minute", "requests", "In any 60 seconds, of all callers together."
    )
    tokens_per_minute = _whole(
        "tokens_per_minute",
        "Tokens a minute",
        "tokens",
        "Prompts and answers; reserved first, then as it came to.",
    )
    concurrent_requests = _whole(
        "concurrent_requests", "Requests at once", "requests", "Running or waiting, of all callers together."
    )
    queue_limit = _whole(
        "queue_limit", "Queue", "requests", "How many may wait at each gateway; the next gets 429. 0: none waits."
    )
    queue_seconds = _whole(
        "queue_seconds", "Longest wait while busy", "s", "For an instance to be free; then 503. 0: nothing waits."
    )
    wake_seconds = _whole(
        "wake_seconds", "Longest wait while waking", "s", "For an endpoint that sleeps to start an instance."
    )
    max_response_mb = _whole("max_response_mb", "Longest answer", "MiB", "A longer one ends in an error.")
    origins = Origins(
        label="Browser origins",
        required=False,
        help_text="Whose pages may call this endpoint from a browser: scheme and host, one a line, such as "
        "https://app.example. A key in a page is everybody's who opens it.",
    )


def context_of(
    endpoint: Endpoint, form: AdmissionForm | None = None, was: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the Traffic tab shows. `form`: one that was posted; without it, the rules as they are. `was`: each
    field as its person's page first showed it."""
    rules = endpoint.rules
    present = {name: getattr(rules, name) for name in AdmissionForm.base_fields}
    shown = form or AdmissionForm(initial=present)
    return {
        "form": shown,
        "rules": [(field.label, said(field.name, present[field.name])) for field in shown],
        "was": (was or {name: typed(value) for name, value in present.items()}).items(),
    }


def said(name: str, value: Any) -> str:
    if name == "origins":
        return ", ".join(value) or "none but the console’s own"
    seconds = {"queue_seconds": " s", "wake_seconds": " s"}
    unit = {**seconds, "max_response_mb": " MiB", "queue_limit": " calls at each gateway"}.get(name, "")
    return "no limit" if value is None else f"{value:,}{unit}"


def typed(value: Any) -> str:
    """A value as its field's text."""
    if isinstance(value, list):
        return "\n".join(value)
    return "" if value is None else str(value)
