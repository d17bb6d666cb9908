"""The form by which an endpoint opts in to keeping bodies."""

from __future__ import annotations

from django import forms

from monitoring.bodies import MOST_PATTERNS
from monitoring.redact_bodies import NoPattern, compiled


class BodiesForm(forms.Form):
    one_in = forms.IntegerField(
        label="Of so many requests, keep one",
        min_value=1,
        max_value=1_000_000,
        initial=100,
        error_messages={
            "required": "Give a whole number, such as 100.",
            "invalid": "Give a whole number, such as 100.",
            "min_value": "Give 1 or more; 1 keeps every one.",
            "max_value": "Give 1,000,000 or less, or keep none.",
        },
        help_text="Drawn by chance, and at most ten a minute and gateway. 1 keeps every one of those ten.",
    )
    patterns = forms.CharField(
        label="Redact also",
        required=False,
        strip=False,
        max_length=8_000,
        widget=forms.Textarea(attrs={"rows": 5, "spellcheck": "false", "autocomplete": "off"}),
        help_text=(
            "Regular expressions (RE2), one a line, such as <code>PAT-[0-9]{6}</code>. What they match in any "
            "text of the JSON is stored as [redacted]."
        ),
    )

    def clean_patterns(self) -> list[str]:
        return patterns_of(self.cleaned_data["patterns"].splitlines())


def patterns_of(lines: list[str]) -> list[str]:
    """The patterns among the lines, each once. Raises ValidationError for what is none."""
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(found) > MOST_PATTERNS:
        raise forms.ValidationError(f"Give at most {MOST_PATTERNS} patterns; you gave {len(found)}.")
    for pattern in found:
        if len(pattern) > 200:
            raise forms.ValidationError(f"“{pattern[:40]}…” is longer than 200 characters.")
        try:
            compiled(pattern)
        except NoPattern as problem:
            raise forms.ValidationError(str(problem)) from None
    return found
