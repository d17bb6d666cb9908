"""Form fields whose messages say what was given, what may be given, and the unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from endpoints.spec import LIMITS

Pairs = list[tuple[str, str]]
PLAIN = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "off"}  # of names and addresses


def _messages(name: str, label: str, unit: str, kind: str) -> tuple[float, float, float, dict[str, str]]:
    low, high, default = LIMITS[name]
    unit = f" {unit}" if unit else ""
    span = f"{low:,g} to {high:,g}{unit}"
    formatted = unit.replace("%", "%%")  # Django fills these two in
    messages = {
        "required": f"{label} is missing. Give {kind} from {span}.",
        "invalid": f"{label} must be {kind} from {span}.",
        "min_value": f"{label} must be at least {low:,g}{formatted}; you gave %(show_value)s.",
        "max_value": f"{label} must be at most {high:,g}{formatted}; you gave %(show_value)s.",
    }
    return low, high, default, messages


def whole(name: str, label: str, unit: str = "", hint: str = "") -> forms.IntegerField:
    """A whole number within the specification's range, which the hint repeats."""
    low, high, default, messages = _messages(name, label, unit, "a whole number")
    span = f"{low:,g}–{high:,g}, usually {default:,g}."
    return forms.IntegerField(
        label=label,
        min_value=int(low),
        max_value=int(high),
        initial=int(default),
        error_messages=messages,
        help_text=f"{hint} {span}".strip(),
        widget=forms.NumberInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )


def decimal(name: str, label: str, step: str, hint: str = "") -> forms.FloatField:
    """A number within the specification's range."""
    low, high, default, messages = _messages(name, label, "", "a number")
    return forms.FloatField(
        label=label,
        min_value=low,
        max_value=high,
        initial=default,
        error_messages=messages,
        help_text=f"{hint} {low:g}–{high:g}, usually {default:g}.".strip(),
        widget=forms.NumberInput(attrs={"step": step, "inputmode": "decimal", "autocomplete": "off"}),
    )


class OneOf(forms.ChoiceField):
    """A choice by name; a value that isn't one is answered with those that are.

    `reasons` (value → why not) greys choices out on the page and refuses them here with the same words.
    """

    def __init__(self, label: str, choices: Iterable[tuple[str, str]], **extra: Any) -> None:
        super().__init__(label=label, choices=list(choices), widget=ReasonedSelect(), **extra)
        self.reasons: Mapping[str, str] = {}

    def refuse(self, reasons: Mapping[str, str]) -> None:
        self.reasons = reasons
        self.widget.reasons = reasons

    def validate(self, value: Any) -> None:
        known = [str(one) for one, _ in self.widget.choices if one != ""]
        if value in self.empty_values and self.required:
            raise forms.ValidationError(f"{self.label} is missing. {_say(known)}", code="required")
        if value and str(value) not in known:
            raise forms.ValidationError(
                f"“{value}” is no {str(self.label).lower()} that can be chosen here. {_say(known)}",
                code="invalid_choice",
            )
        if reason := self.reasons.get(str(value)):
            raise forms.ValidationError(reason, code="refused")


def _say(known: list[str]) -> str:
    return f"Choose one of: {', '.join(known)}." if known else "There is nothing to choose yet."


class ReasonedSelect(forms.Select):
    """A drop-down whose impossible options can't be picked; the reason stands beneath as a note."""

    reasons: Mapping[str, str] = {}

    def create_option(self, name: str, value: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        option = super().create_option(name, value, *args, **kwargs)
        if str(value) in self.reasons:
            option["attrs"]["disabled"] = True
        return option


class RowsWidget(forms.Widget):
    """Name and value pairs; the page draws the rows itself."""

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> Any:
        return data.get(name) or []


class Rows(forms.Field):
    """A list of (name, value), blank rows left out; what is wrong with a row is the form's to say."""

    widget = RowsWidget

    def __init__(self, label: str) -> None:
        super().__init__(label=label, required=False)

    def to_python(self, value: Any) -> Pairs:
        pairs = [(str(name).strip(), str(text)) for name, text in value or []]
        return [(name, text) for name, text in pairs if name or text]
