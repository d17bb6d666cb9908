"""The one door that turns JSON into a Spec. The wizard's pages go through the same forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from accounts.models import Project, User
from endpoints.spec import ContainerSpec, EnvironmentSpec, LlmSpec, Method, ScalingSpec, SourceSpec, Spec
from endpoints.wizard.engines import usual_type
from endpoints.wizard.judge import Judged, judge
from endpoints.wizard.situation import Catalogue

SECTIONS: dict[str, type[Any]] = {
    "source": SourceSpec,
    "container": ContainerSpec,
    "llm": LlmSpec,
    "scaling": ScalingSpec,
    "environment": EnvironmentSpec,
}
STEP_OF = {"name": "basics", "region": "basics", "instance_type": "machine", "memory_gib": "machine"}
STEP_OF |= dict.fromkeys(("method", "framework", "framework_version", "container"), "method")
PAIRS = {"variables", "secrets"}


class Invalid(Exception):
    """The wish can't be granted as it is. `errors`: dotted field → what is wrong; "" for the whole."""

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, texts in errors.items() for text in texts))
        self.errors = dict(errors)


def spec_from(payload: Mapping[str, Any], project: Project, *, user: User | None = None) -> Spec:
    """The Spec that a JSON body of `Spec.to_dict()`'s shape asks for; what is left out takes its default.

    Unknown fields are refused, never ignored. A Hugging Face source is reached over the network, so call
    this outside a transaction. Raises Invalid. Rights are the caller's to check; `user` is who asks.
    """
    if not isinstance(payload, Mapping):
        raise Invalid({"": ["The body must be a JSON object."]})
    if shape := dict(_shape_problems(payload)):
        raise Invalid(shape)
    judged = judge(_answers(payload), Catalogue(project), reach=True)
    if not judged.valid:
        raise Invalid(judged.errors())
    if idle := dict(_without_effect(payload, judged)):
        raise Invalid(idle)
    return judged.spec()


def _without_effect(payload: Mapping[str, Any], judged: Judged) -> Iterator[tuple[str, list[str]]]:
    """Settings that were given a value and mean nothing with the others."""
    for form in judged.forms().values():
        for name, why in form.unused().items():
            dotted = form.dotted(name)
            section, _, key = dotted.rpartition(".")
            holder = SECTIONS[section] if section else Spec
            given = payload.get(section, {}).get(key, "") if section else payload.get(key, "")
            if given not in ("", getattr(holder, key), judged.spec().engine):
                yield dotted, [f"This has no effect here. {why}"]


def _shape_problems(payload: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Unknown names, and values of a kind that no field takes."""
    known = {*STEP_OF, *SECTIONS}
    for name, value in payload.items():
        if name not in known:
            yield str(name), [f"There is no such field. Known here: {', '.join(sorted(known))}."]
        elif name not in SECTIONS:
            yield from _value_problem(name, value)
        elif not isinstance(value, Mapping):
            yield name, ["This must be a JSON object."]
        else:
            yield from _section_problems(name, value)


def _section_problems(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    known = [one.name for one in fields(SECTIONS[section])]
    for name, value in values.items():
        dotted = f"{section}.{name}"
        if name not in known:
            yield dotted, [f"There is no such field. Known here: {', '.join(known)}."]
        elif name not in PAIRS:
            yield from _value_problem(dotted, value)
        elif not isinstance(value, Mapping):
            yield dotted, ["This must be a JSON object of names and texts."]
        else:
            for key, text in value.items():
                if not isinstance(text, str):
                    yield dotted, [f"{key}: The value must be text, in quotation marks."]
                elif problem := _unstorable(str(key) + text):
                    yield dotted, [f"{key!a}: {problem}"]


def _value_problem(dotted: str, value: Any) -> Iterator[tuple[str, list[str]]]:
    if value is None or isinstance(value, bool) or not isinstance(value, str | int | float):
        yield dotted, ["This must be text or a number. Leave the field out for its default."]
    elif isinstance(value, str) and (problem := _unstorable(value)):
        yield dotted, [problem]


def _unstorable(text: str) -> str:
    """PostgreSQL keeps neither NUL nor half a surrogate pair."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        return "The text holds a character that can't be stored."
    return ""


def _answers(payload: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The body as the steps' answers, with defaults where it says nothing."""
    answers: dict[str, dict[str, Any]] = {
        "basics": {},
        "method": _defaults(ContainerSpec) | {"method": Spec.method, "framework": Spec.framework},
        "machine": {"instance_type": ""},
        "source": {"kind": SourceSpec.kind, "revision": SourceSpec.revision},
        "llm": _defaults(LlmSpec),
        "scaling": _defaults(ScalingSpec),
        "environment": {"max_workers": EnvironmentSpec.max_workers, "log_level": EnvironmentSpec.log_level},
    }
    if payload.get("method", Spec.method) != Method.CUSTOM:
        answers["llm"]["data_type"] = usual_type(str(payload.get("framework", Spec.framework)))
    for name, step in STEP_OF.items():
        if name in payload and name not in SECTIONS:
            answers[step][name] = payload[name]
    for section in SECTIONS:
        for name, value in payload.get(section, {}).items():
            answers[STEP_OF.get(section, section)][name] = (
                [list(pair) for pair in value.items()] if name in PAIRS else value
            )
    return answers


def _defaults(kind: type[ContainerSpec | LlmSpec | ScalingSpec]) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in kind.__dataclass_fields__}
