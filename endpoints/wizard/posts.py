"""From a posted page to a step's answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.http import QueryDict

from endpoints.wizard.environment_form import MOST_ROWS, EnvironmentForm, without_secrets
from endpoints.wizard.forms import BasicsForm, MachineForm, ScalingForm, StepForm
from endpoints.wizard.llm_form import LlmForm
from endpoints.wizard.method_form import MethodForm
from endpoints.wizard.source_form import SourceForm
from endpoints.wizard.source_kinds import KINDS

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
KEPT = "kept"  # in the source's answers: what was typed for the kinds that aren't chosen, by kind
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@")  # of an address; the person is told to store them
Values = dict[str, Any]


def answers(step: str, before: Values, post: QueryDict) -> Values:
    """The step's answers after this post: what the page didn't show stays as it was."""
    return _source(before, post) if step == "source" else before | _read(step, post)


def _read(step: str, post: QueryDict) -> Values:
    names = FORMS[step].base_fields
    found: Values = {name: _clean(str(post[name])) for name in names if name in post and name not in ROWS}
    if step == "method" and "engine" in post:
        framework, _, version = str(post["engine"]).partition("@")
        found |= {"framework": _clean(framework), "framework_version": _clean(version)}
    if step == "method" and post.get("use_image"):
        found["image"] = _clean(str(post["use_image"]))
    if step == "environment":
        found |= {field: _rows(field, post) for field in ROWS if ROWS[field][0] in post}
    return found


def _source(before: Values, post: QueryDict) -> Values:
    """Every kind keeps its own answers. The page shows those of `shown` under their own names, those of the
    other kinds with the kind in front; a kind that wasn't shown keeps what it had."""
    was = str(before.get("kind", ""))
    kind = _clean(str(post.get("kind", was)))
    kept = {name: dict(values) for name, values in before.get(KEPT, {}).items()}
    kept[was] = {name: before[name] for name in _fields(was) if name in before}
    for other in KINDS:
        names = {f"{other}-{name}": name for name in _fields(other)}
        given = {name: _clean(str(post[posted])) for posted, name in names.items() if posted in post}
        kept[other] = kept.get(other, {}) | given
    shown = _clean(str(post.get("shown", kind)))
    kept[shown] = kept.get(shown, {}) | {name: _clean(str(post[name])) for name in _fields(shown) if name in post}
    if "pick" in post:
        model, _, version = str(post["pick"]).rpartition("@")
        kept["registry"] |= {"model": _clean(model), "version": _clean(version)}
    if post.get("use_file"):
        kept.setdefault(kind, {})["file"] = _clean(str(post["use_file"]))
    if post.get("use_host_key"):
        kept.setdefault(kind, {})["host_key"] = _clean(str(post["use_host_key"]))
    chosen = kept.pop(kind, {})
    return {"kind": kind} | chosen | {KEPT: {name: values for name, values in kept.items() if values}}


def _fields(kind: str) -> tuple[str, ...]:
    return KINDS[kind].fields if kind in KINDS else ()


def storable(step: str, values: Mapping[str, Any]) -> Values:
    """The same without what must never be stored: values that look like secrets."""
    if step == "source":
        kept = {kind: _without(typed) for kind, typed in values.get(KEPT, {}).items()}
        return _without(values) | ({KEPT: kept} if kept else {})
    if step != "environment":
        return dict(values)
    rows = [(str(name), str(value)) for name, value in values.get("variables", [])]
    return dict(values) | {"variables": [list(row) for row in without_secrets(rows)]}


def _without(values: Mapping[str, Any]) -> Values:
    return dict(values) | ({"url": CREDENTIALS.sub("", str(values["url"]))} if values.get("url") else {})


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
