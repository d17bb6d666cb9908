"""What each page of the wizard shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.urls import reverse

from endpoints.models import Draft, Endpoint, InstanceType
from endpoints.spec import LIMITS
from endpoints.status import Status
from endpoints.templatetags.formats import bytes_binary
from endpoints.wizard import drafts, guide, machines
from endpoints.wizard.checklist import checklist, problems
from endpoints.wizard.environment_form import without_secrets
from endpoints.wizard.forms import StepForm
from endpoints.wizard.judge import Judged
from endpoints.wizard.llm_form import numbers
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
    return context | _MORE.get(at.slug, _nothing)(draft, judged, answers, shown)


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


# ── what single steps show besides ───────────────────────────────────────────────────────────────
def _nothing(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    return {}


def _basics(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    living = Endpoint.objects.living().filter(project=draft.project)
    return {
        "running": [(endpoint, Status(endpoint.status)) for endpoint in living.select_related("region")[:6]],
        "running_count": living.count(),
        "prerequisites": guide.PREREQUISITES,
        "name_url": _url(draft, "draft_name"),
    }


def _method(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    return {"methods": guide.METHODS, "frameworks": guide.FRAMEWORKS}


def _source(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    values = answers["source"]
    picked = f"{values.get('model', '')}@{values.get('version', '')}"
    cards = [
        {
            "value": f"{model.name}@{version.number}",
            "title": f"{model} · v{version.number}",
            "facts": _model_facts(version.facts, version.size_bytes, model.license),
            "checked": picked == f"{model.name}@{version.number}",
            "text": model.description,
        }
        for model in judged.situation.catalogue.models.values()
        for version in model.versions.all()
    ]
    return {"sources": guide.with_checked(guide.SOURCES, values.get("kind")), "models": cards}


def _model_facts(facts: Context, size: int, license_name: str) -> list[str]:
    said = [bytes_binary(size), facts.get("quantization") or ""]
    if facts.get("context_length"):
        said.append(f"{facts['context_length']:,} tokens of context")
    if facts.get("parameter_count"):
        said.append(f"{facts['parameter_count'] / 1e6:,.0f} M parameters")
    return [fact for fact in (*said, license_name) if fact]


def _machine(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    length, batch, data_type = numbers(answers["llm"])
    best = machines.recommended(judged.situation, length=length, concurrency=batch, data_type=data_type)
    chosen = form.shown("instance_type")
    families: dict[str, list[Context]] = {}
    for kind in judged.situation.catalogue.types.values():
        reason = machines.reason_against(kind, judged.situation)
        card = {
            "type": kind,
            "title": f"{kind.slug} · recommended" if kind.slug == best else kind.slug,
            "facts": _machine_facts(kind),
            "reason": reason,
            "checked": kind.slug == chosen,
        }
        families.setdefault(kind.get_family_display(), []).append(card)
    return {"families": families}


def _machine_facts(kind: InstanceType) -> list[str]:
    facts = [f"{kind.vcpus} vCPUs", f"{bytes_binary(kind.memory_bytes)} memory", kind.network]
    if kind.has_gpu:
        count = f"{kind.gpu_count} × " if kind.gpu_count > 1 else ""
        facts.insert(0, f"{count}NVIDIA {kind.gpu.removeprefix('NVIDIA ')}, {bytes_binary(kind.gpu_memory_bytes)}")
    return [fact for fact in (*facts, kind.best_for) if fact]


def _llm(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    def cards(choices: tuple[guide.Choice, ...], field: str) -> list[guide.Choice]:
        reasons = getattr(form.fields[field], "reasons", {})
        shown = guide.with_checked(choices, answers["llm"].get(field))
        return [replace(choice, reason=reasons.get(choice.value, "")) for choice in shown]

    return {
        "load_formats": cards(guide.LOAD_FORMATS, "load_format"),
        "data_types": cards(guide.DATA_TYPES, "data_type"),
        "quantizations": cards(guide.QUANTIZATIONS, "quantization"),
        "no_tokenizer": guide.NO_TOKENIZER,
        "no_padding": guide.NO_PADDING,
    }


def _scaling(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    machine, look = judged.situation.machine, judged.situation.look
    values = answers["scaling"]
    return {
        "billing": guide.with_checked(guide.BILLING, values.get("billing_model")),
        "cold_starts": guide.cold_starts(bool(machine and machine.has_gpu), look.size if look else None),
        "starts_at_zero": str(values.get("min_instances")) == "0",
    }


def _environment(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    variables = without_secrets([(str(name), str(value)) for name, value in answers["environment"]["variables"]])
    secrets = [(str(name), str(value)) for name, value in answers["environment"]["secrets"]]
    return {
        "variable_rows": _rows(variables, form, "variables"),
        "secret_rows": _rows(secrets, form, "secrets"),
        "has_gpu": bool(judged.situation.machine and judged.situation.machine.has_gpu),
    }


def _rows(pairs: list[tuple[str, str]], form: StepForm, field: str) -> list[Context]:
    """The rows as typed, each with its errors, and an empty one to type the next into."""
    wrong = form.row_errors.get(field, {}) if form.errors else {}
    rows = [
        {"place": place, "name": name, "value": value, "errors": wrong.get(place, [])}
        for place, (name, value) in enumerate(pairs)
    ]
    return [*rows, {"place": len(rows), "name": "", "value": "", "errors": []}]


_MORE = {
    "basics": _basics,
    "method": _method,
    "source": _source,
    "machine": _machine,
    "llm": _llm,
    "scaling": _scaling,
    "environment": _environment,
}


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
        sections.append({"title": BY_SLUG[slug].label, "url": urls[slug], "rows": rows})
    return sections


def _texts(slug: str, form: StepForm) -> list[tuple[str, str]]:
    values = form.cleaned_data
    if slug == "source":
        registry = values.get("kind") == "registry"
        names = (
            ("kind", "model", "version") if registry else ("kind", "model_id", "revision", "file", "token_secret")
        )
        return [(name, _text(form, name)) for name in names if values.get(name)]
    hidden = {"requests_per_month", "active_hours"}
    return [(name, _text(form, name)) for name in form.fields if name not in hidden and name in values]


def _text(form: StepForm, name: str) -> str:
    value = form.cleaned_data[name]
    if name == "variables":
        return ", ".join(f"{key}={text}" for key, text in value) or "None"
    if name == "secrets":
        return ", ".join(f"{key} from secret “{stored}”" for key, stored in value) or "None"
    choices = dict(getattr(form.fields[name], "choices", ()))
    if value in choices:
        return str(choices[value])
    return f"{value:,}" if isinstance(value, int) and name in LIMITS else str(value)
