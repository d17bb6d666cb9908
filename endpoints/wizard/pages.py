"""What each page of the wizard shows."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from endpoints.models import Draft
from endpoints.spec import LIMITS
from endpoints.wizard import drafts, showing
from endpoints.wizard.checklist import checklist, problems
from endpoints.wizard.forms import StepForm
from endpoints.wizard.judge import Judged
from endpoints.wizard.panel import panel_of
from endpoints.wizard.secret_form import SecretForm
from endpoints.wizard.situation import Catalogue
from endpoints.wizard.steps import BY_SLUG, FORM_STEPS, LAST, STEPS, Step

Context = dict[str, Any]


def row_of(draft: Draft) -> Context:
    """One line of the list of unfinished drafts."""
    return {"draft": draft, "step": STEPS[min(draft.reached, LAST.position)]}


def context_of(
    draft: Draft, at: Step, *, values: dict[str, Any] | None = None, form: StepForm | None = None, **more: Any
) -> Context:
    """`values` and `form`: what was posted and refused; without them, what the draft holds."""
    catalogue = Catalogue(draft.project)
    answers = drafts.answers_of(draft, catalogue)
    if values is not None:
        answers[at.slug] = values
    judged = drafts.judged(draft, catalogue, answers)
    context: Context = {
        "draft": draft,
        "at": at,
        "steps": _stepper(draft, at, judged, refused=form is not None),
        "panel": panel_of(judged, answers),
        "usage": _usage(answers),
        "panel_url": _url(draft, "panel"),
        "dropped": draft.dropped,
        "dropped_by": BY_SLUG[draft.dropped["by"]].label if draft.dropped else "",
        "look": judged.situation.look,
        "catalogue": catalogue,
        "secret_form": SecretForm(project=draft.project),
        "is_last_form": at.slug == FORM_STEPS[-1],
    } | more
    if at == LAST:
        return context | _summary(judged, context)
    shown = form or judged.form(at.slug)
    if form is None and not _judge_openly(draft, at):
        shown.quiet()
    context["form"] = shown
    return context | showing.more(at.slug, draft, judged, answers, shown)


def panel_context(draft: Draft) -> Context:
    catalogue = Catalogue(draft.project)
    answers = drafts.answers_of(draft, catalogue)
    panel = panel_of(drafts.judged(draft, catalogue, answers), answers)
    return {"draft": draft, "panel": panel, "usage": _usage(answers), "oob": True}


def _usage(answers: Context) -> Context:
    """What the estimate of the scaling step counts with, as typed."""
    scaling = answers["scaling"]
    return {"requests": scaling.get("requests_per_month"), "hours": scaling.get("active_hours")}


def _url(draft: Draft, name: str) -> str:
    return reverse(f"endpoints:{name}", args=[draft.project.slug, draft.pk])


def _judge_openly(draft: Draft, at: Step) -> bool:
    """A page that nobody has answered yet shows no errors."""
    return (
        at.slug in draft.answers or at.slug in draft.answers.get(drafts.TYPED, {}) or draft.reached > at.position
    )


def _stepper(draft: Draft, at: Step, judged: Judged, *, refused: bool) -> list[Context]:
    entries = []
    for step in STEPS:
        wrong = step != LAST and not judged.form(step.slug).is_valid()
        if step == at:
            state = "current"
        elif step.position >= draft.reached:
            state = "todo"
        else:
            state = "error" if wrong else "done"
        url = reverse("endpoints:step", args=[draft.project.slug, draft.pk, step.slug])
        entries.append(
            {"label": step.label, "url": url, "state": state, "reached": step.position <= draft.reached}
        )
    return entries


def _summary(judged: Judged, context: Context) -> Context:
    items = checklist(judged, context["panel"])
    urls = {step["label"]: step["url"] for step in context["steps"]}
    by_step = {step.slug: urls[step.label] for step in STEPS}
    wrong = problems(items)
    return {
        "items": [{"item": item, "url": by_step.get(item.step, "")} for item in items],
        "wrong": wrong,
        "sections": _sections(judged, by_step),
    }


def _sections(judged: Judged, urls: dict[str, str]) -> list[Context]:
    """Everything chosen, step by step, in the words of its form."""
    sections = []
    for slug in FORM_STEPS:
        form = judged.form(slug)
        rows = [(str(form.fields[name].label), text) for name, text in _texts(slug, form)]
        rows = rows or [("Settings", "Your image decides")]
        sections.append({"title": BY_SLUG[slug].label, "url": urls[slug], "rows": rows})
    return sections


def _texts(slug: str, form: StepForm) -> list[tuple[str, str]]:
    values = form.cleaned_data
    hidden = {"requests_per_month", "active_hours", *form.unused()}
    names = [name for name in form.fields if name not in hidden and name in values]
    if slug in ("method", "source", "machine"):
        names = [name for name in names if values[name] not in ("", None, 0.0)]
    return [(name, _text(form, name)) for name in names]


def _text(form: StepForm, name: str) -> str:
    value = form.cleaned_data[name]
    if name == "variables":
        return ", ".join(f"{key}={text}" for key, text in value) or "None"
    if name == "secrets":
        return ", ".join(f"{key} from secret “{stored}”" for key, stored in value) or "None"
    choices = dict(getattr(form.fields[name], "choices", ()))
    if value in choices:
        return str(choices[value])
    return f"{value:,}" if isinstance(value, int) and name in LIMITS and name != "port" else str(value)
