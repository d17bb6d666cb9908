"""What is kept of a draft, and how it changes: per step, under a lock, so that a second tab loses nothing.

A draft's `answers` hold each step as it was last accepted, and under "typed" what was typed since and isn't
accepted yet: that is what its person sees again after a reload, an error or a new login.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.models import Project, User
from endpoints.models import Draft, Endpoint
from endpoints.models.endpoint import Refused
from endpoints.spec import ContainerSpec, EnvironmentSpec, Framework, LlmSpec, ScalingSpec, SourceKind, Spec
from endpoints.wizard import engines, machines
from endpoints.wizard.forms import ScalingForm, StepForm, name_problem
from endpoints.wizard.image_look import ImageLook
from endpoints.wizard.judge import Judged, judge
from endpoints.wizard.looks import Look, misfit
from endpoints.wizard.method_form import MethodForm
from endpoints.wizard.situation import Catalogue, Situation
from endpoints.wizard.source_form import SourceForm
from endpoints.wizard.steps import BY_SLUG, FORM_STEPS

TYPED = "typed"
Values = Mapping[str, Any]

_METHOD = {one.name: one.default for one in fields(ContainerSpec)} | {
    "method": str(Spec.method),
    "framework": str(Spec.framework),
    "framework_version": "",
}


def start(project: Project, user: User) -> Draft:
    """A draft with a free name proposed; everything else stands on its default."""
    catalogue = Catalogue(project)
    first = next(iter(catalogue.models), "my-model")
    answers = {"basics": {"name": free_name(first)}}
    return Draft.objects.create(project=project, user=user, answers=answers)


def free_name(wanted: str) -> str:
    """`wanted` as an endpoint may be called, with a number behind it where that is taken."""
    letters = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in wanted.lower())
    base = letters.strip("-0123456789")[:34].strip("-") or "my-model"
    taken = set(Endpoint.objects.living().filter(name__startswith=base).values_list("name", flat=True))
    candidates = [base, *(f"{base}-{number}" for number in range(2, len(taken) + 3))]
    return next((name for name in candidates if name not in taken and not name_problem(name)), base)


def answers_of(draft: Draft, catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    """Every step's answers as its person sees them: typed over accepted over default."""
    typed = draft.answers.get(TYPED, {})
    given = {step: draft.answers.get(step, {}) | typed.get(step, {}) for step in FORM_STEPS}
    engine = MethodForm(_METHOD | given["method"], situation=Situation(catalogue)).engine
    defaults = _defaults(catalogue, engine)
    answers = {step: defaults[step] | given[step] for step in FORM_STEPS}
    answers["llm"]["data_type"] = given["llm"].get("data_type") or engines.usual_type(engine)
    if "max_sequence_length" not in given["llm"]:
        answers["llm"]["max_sequence_length"] = _length(answers["source"], draft, catalogue, engine)
    return answers


def _length(source: Values, draft: Draft, catalogue: Catalogue, engine: str) -> int:
    """The usual length, or what the model was trained for where that is less."""
    form = SourceForm(source, situation=Situation(catalogue, engine=engine))
    look = None
    if form.is_valid():
        look = form.situation.with_source(form.spec(), Look.from_dict(draft.found)).look
    trained = look.shape.trained_context if look and look.shape else None
    return max(machines.SHORTEST, min(LlmSpec.max_sequence_length, trained or LlmSpec.max_sequence_length))


def _defaults(catalogue: Catalogue, engine: str) -> dict[str, dict[str, Any]]:
    newest = [version for model in catalogue.models.values() for version in list(model.versions.all())[:1]]
    version = next((one for one in newest if not misfit(one, engine)), None)
    source: dict[str, Any] = {"kind": SourceKind.NONE if engine == Framework.CUSTOM else SourceKind.REGISTRY}
    if version:
        source |= {"model": version.model.name, "version": version.number}
    return {
        "basics": {"region": next(iter(catalogue.regions), "")},
        "method": _METHOD,
        "source": source,
        "machine": {},
        "llm": _values(LlmSpec),
        "scaling": _values(ScalingSpec)
        | {name: ScalingForm.base_fields[name].initial for name in ("requests_per_month", "active_hours")},
        "environment": {
            "max_workers": EnvironmentSpec.max_workers,
            "log_level": str(EnvironmentSpec.log_level),
            "variables": [],
            "secrets": [],
        },
    }


def _values(kind: type[LlmSpec | ScalingSpec]) -> dict[str, Any]:
    found = {name: getattr(kind, name) for name in kind.__dataclass_fields__}
    return {name: str(value) if isinstance(value, str) else value for name, value in found.items()}


def judged(draft: Draft, catalogue: Catalogue, changed: Mapping[str, Values] | None = None) -> Judged:
    """The whole draft, with some steps' answers replaced by `changed`."""
    answers = answers_of(draft, catalogue) | {step: dict(values) for step, values in (changed or {}).items()}
    return judge(answers, catalogue, look=Look.from_dict(draft.found), image=ImageLook.from_dict(draft.image))


# ── changes ──────────────────────────────────────────────────────────────────────────────────────
def _locked(draft: Draft) -> Draft:
    return Draft.objects.select_for_update(of=("self",)).get(pk=draft.pk)


def _save(draft: Draft) -> None:
    draft.updated_at = timezone.now()
    draft.save(update_fields=["answers", "dropped", "found", "image", "reached", "updated_at"])


@transaction.atomic
def keep_typed(draft: Draft, step: str, values: Values) -> Draft:
    """Keep what was typed in a step without judging it. The last writer of a step wins."""
    draft = _locked(draft)
    draft.answers = draft.answers | {TYPED: draft.answers.get(TYPED, {}) | {step: dict(values)}}
    _save(draft)
    return draft


@transaction.atomic
def keep_look(draft: Draft, look: Look) -> Draft:
    """Keep what a successful Test Connection saw."""
    draft = _locked(draft)
    draft.found = look.to_dict()
    _save(draft)
    return draft


@transaction.atomic
def keep_image(draft: Draft, look: ImageLook | None) -> Draft:
    """Keep what the registry said of the image; None forgets what it said before."""
    draft = _locked(draft)
    draft.image = look.to_dict() if look else {}
    _save(draft)
    return draft


@transaction.atomic
def accept(draft: Draft, step: str, values: Values, *, reached: int, look: Look | None = None) -> Draft:
    """Take a step's valid answers. Later answers that can't stand with them go to `dropped`, for undo."""
    draft = _locked(draft)
    catalogue = Catalogue(draft.project)
    before, before_found = draft.answers.get(step), draft.found
    old = judged(draft, catalogue, {step: before or {}} if before else None)
    typed = {name: kept for name, kept in draft.answers.get(TYPED, {}).items() if name != step}
    draft.answers = draft.answers | {step: dict(values), TYPED: typed}
    draft.found = look.to_dict() if look else draft.found
    draft.reached = max(draft.reached, reached)
    fallen = _fallen(draft, step, old, judged(draft, catalogue))
    _forget_answered(draft, step)
    if fallen:
        draft.dropped = {"by": step, "before": before, "found": before_found, "fields": fallen}
    _save(draft)
    return draft


def _fallen(draft: Draft, step: str, old: Judged, new: Judged) -> list[dict[str, Any]]:
    """Take the later answers out that were right before this change and are wrong after it."""
    fallen = []
    for later in FORM_STEPS[BY_SLUG[step].position + 1 :]:
        given = draft.answers.get(later, {}) | draft.answers[TYPED].get(later, {})
        form = new.form(later)
        for field, problems in form.errors.items():
            if field not in given or field in old.form(later).errors:
                continue
            label = str(form.fields[field].label)
            kept = {"step": later, "field": field, "label": label, "value": given[field]}
            fallen.append(kept | {"shown": _named(form, field, given[field]), "why": str(problems[0])})
    for item in fallen:
        for place in (draft.answers, draft.answers[TYPED]):
            place.get(item["step"], {}).pop(item["field"], None)
    return fallen


def _named(form: StepForm, field: str, value: Any) -> str:
    """A dropped value as its page named it."""
    choices = dict(getattr(form.fields[field], "choices", ()))
    return str(choices.get(value, value))


def _forget_answered(draft: Draft, step: str) -> None:
    """A dropped answer that was given anew needs no undo any more."""
    left = [item for item in draft.dropped.get("fields", []) if item["step"] != step]
    draft.dropped = draft.dropped | {"fields": left} if left and draft.dropped["by"] != step else {}


@transaction.atomic
def undo(draft: Draft) -> str:
    """Take back the change that dropped something, and put that back. The step changed; "" if there's none."""
    draft = _locked(draft)
    dropped = draft.dropped
    if not dropped:
        return ""
    answers, by = dict(draft.answers), str(dropped["by"])
    typed = {name: kept for name, kept in answers.get(TYPED, {}).items() if name != by}
    if dropped["before"] is None:
        answers.pop(by, None)
    else:
        answers[by] = dropped["before"]
    for item in dropped["fields"]:
        answers[item["step"]] = answers.get(item["step"], {}) | {item["field"]: item["value"]}
        typed.get(item["step"], {}).pop(item["field"], None)
    draft.answers, draft.found, draft.dropped = answers | {TYPED: typed}, dropped["found"], {}
    _save(draft)
    return by


def deploy(draft: Draft, *, by: User) -> Endpoint:
    """The endpoint of this draft, made now or by whoever was faster. Raises Refused, Misfit.

    The source was reached before; nothing here waits for the network.
    """
    verdict = judged(draft, Catalogue(draft.project))
    if draft.endpoint is None and (not verdict.valid or verdict.situation.look is None):
        raise Misfit(verdict)
    with transaction.atomic():
        locked = _locked(draft)
        if locked.endpoint is not None:
            return locked.endpoint
        if locked.answers != draft.answers:
            raise Refused("The draft was changed in another tab a moment ago. Look at it again, then deploy.")
        endpoint = Endpoint.launch(draft.project, verdict.spec(), by=by)
        Draft.objects.filter(pk=draft.pk).update(endpoint=endpoint, updated_at=timezone.now())
    return endpoint


class Misfit(Exception):
    """The draft can't be deployed as it is; `judged` says where."""

    def __init__(self, judged: Judged) -> None:
        super().__init__("The draft has errors.")
        self.judged = judged

    @property
    def step(self) -> str:
        """The first step to mend."""
        wrong = [name for name, form in self.judged.forms().items() if not form.is_valid()]
        return wrong[0] if wrong else "source"
