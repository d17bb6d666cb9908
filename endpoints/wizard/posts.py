"""From a posted page to a step's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import QueryDict

from endpoints.wizard.environment_form import MOST_ROWS, EnvironmentForm, without_secrets
from endpoints.wizard.forms import BasicsForm, MachineForm, MethodForm, ScalingForm, StepForm
from endpoints.wizard.llm_form import LlmForm
from endpoints.wizard.source_form import SourceForm

FORMS: Mapping[str, type[StepForm]] = {
    "basics": BasicsForm,
    "method": MethodForm,
    "source": SourceForm,
    "machine": MachineForm,
    "llm": LlmForm,
    "scaling": ScalingForm,
    "environment": EnvironmentForm,
}
LONGEST = 5000
ROWS = {"variables": ("variable_name", "variable_value"), "secrets": ("secret_name", "secret_ref")}


def read(step: str, post: QueryDict) -> dict[str, Any]:
    """What the page posted of a step; a field that the page didn't show is left out."""
    found: dict[str, Any] = {
        name: _clean(str(post[name])) for name in FORMS[step].base_fields if name in post and name not in ROWS
    }
    if step == "source" and "pick" in post:
        model, _, version = str(post["pick"]).rpartition("@")
        found |= {"model": _clean(model), "version": _clean(version)}
    if step == "source" and post.get("use_file"):
        found["file"] = _clean(str(post["use_file"]))
    if step == "environment":
        found |= {field: _rows(field, post) for field in ROWS if ROWS[field][0] in post}
    return found


def storable(step: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The same without what must never be stored: values that look like secrets."""
    if step != "environment":
        return dict(values)
    rows = [(str(name), str(value)) for name, value in values.get("variables", [])]
    return dict(values) | {"variables": [list(row) for row in without_secrets(rows)]}


def _rows(field: str, post: QueryDict) -> list[list[str]]:
    names, values = (post.getlist(part) for part in ROWS[field])
    pairs = [[_clean(name).strip(), _clean(value)] for name, value in zip(names, values, strict=False)]
    act, _, number = post.get("go", "").rpartition(":")
    if act == f"drop-{field}" and number.isdecimal() and int(number) < len(pairs):
        pairs.pop(int(number))
    return [pair for pair in pairs if any(pair)][: MOST_ROWS + 1]


def _clean(text: str) -> str:
    """As typed, less the one character that PostgreSQL can't keep."""
    return text.replace("\0", "")[:LONGEST]
