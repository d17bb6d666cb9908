"""What single steps show beside their form's fields: the cards to choose from, the rows, the notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from django.urls import reverse

from endpoints.models import Draft, Endpoint, InstanceType
from endpoints.spec import VERSIONS, Framework, SourceKind
from endpoints.status import Status
from endpoints.templatetags.formats import bytes_binary
from endpoints.wizard import guide, machines
from endpoints.wizard.engines import QUANTIZING
from endpoints.wizard.environment_form import standard_variables, without_secrets
from endpoints.wizard.forms import StepForm
from endpoints.wizard.judge import Judged
from endpoints.wizard.llm_form import numbers
from endpoints.wizard.looks import misfit
from endpoints.wizard.posts import KEPT
from endpoints.wizard.report import TONES, WORDS, report_of
from endpoints.wizard.source_form import SourceForm
from endpoints.wizard.source_kinds import KINDS

Context = dict[str, Any]


def more(step: str, draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    """For a step's template, beside what every step's page has."""
    return _MORE[step](draft, judged, answers, form)


def _basics(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    living = Endpoint.objects.living().filter(project=draft.project)
    return {
        "running": [(endpoint, Status(endpoint.status)) for endpoint in living.select_related("region")[:6]],
        "running_count": living.count(),
        "prerequisites": guide.PREREQUISITES,
        "name_url": reverse("endpoints:draft_name", args=[draft.project.slug, draft.pk]),
    }


def _method(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    values = answers["method"]
    framework = str(values["framework"])
    newest = next(iter(VERSIONS.get(framework, ())), "")
    engine = "@".join(filter(None, (framework, str(values["framework_version"] or newest))))
    off = form.one_of("framework").reasons
    return {
        "methods": _refused(guide.with_checked(guide.METHODS, values["method"]), form.one_of("method").reasons),
        "frameworks": [
            replace(card, reason=off.get(card.value.partition("@")[0], ""))
            for card in guide.with_checked(guide.FRAMEWORKS, engine)
        ],
        "requirements": guide.REQUIREMENTS,
        "moving": judged.method.moving,
        "image": _image(judged),
    }


def _image(judged: Judged) -> Context | None:
    """What the last check of this image saw, with what it means for the container as it is asked for now."""
    look = judged.situation.image
    if look is None:
        return None
    return {"look": look, "lines": [(line, TONES[line.level], WORDS[line.level]) for line in judged.image_lines()]}


def _refused(cards: list[guide.Choice], reasons: Mapping[str, str]) -> list[guide.Choice]:
    return [replace(card, reason=reasons.get(card.value, "")) for card in cards]


def _source(draft: Draft, judged: Judged, answers: Context, form: StepForm) -> Context:
    values = answers["source"]
    kind, kept = str(values.get("kind")), values.get(KEPT, {})
    of_kind = {other: form if other == kind else other_kind(other, form, kept.get(other, {})) for other in KINDS}
    cards = guide.with_checked(guide.SOURCES, kind)
    return {
        "sources": _refused(cards, form.one_of("kind").reasons),
        "of_kind": of_kind,
        "shown": kind,
        **_seen(form),
        "one_file": judged.situation.engine == Framework.LLAMA_CPP,
        "models": _models(judged, values if kind == SourceKind.REGISTRY else kept.get("registry", values)),
    }


def _seen(form: StepForm) -> Context:
    """What the last check saw, also where it was no good, or what it could be told to make it good."""
    if not isinstance(form, SourceForm):
        return {}
    offered = form.problem.offer if form.problem else ""
    return {"look": form.seen, "report": report_of(form.seen), "offered": offered}


def other_kind(kind: str, form: StepForm, typed: Context) -> StepForm:
    """The fields of a kind that isn't chosen, with what was typed there, under names of their own."""
    return type(form)(None, situation=form.situation, prefix=kind, initial={"kind": kind} | typed)


def _models(judged: Judged, values: Context) -> list[Context]:
    picked = f"{values.get('model', '')}@{values.get('version', '')}"
    return [
        {
            "value": f"{model.name}@{version.number}",
            "title": f"{model} · v{version.number}",
            "facts": _model_facts(version.facts, version.size_bytes, model.license),
            "checked": picked == f"{model.name}@{version.number}",
            "text": model.description,
            "reason": misfit(version, judged.situation.engine),
        }
        for model in judged.situation.catalogue.models.values()
        for version in model.versions.all()
    ]


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
    engine = judged.situation.engine
    notes = {
        f"{name}_note": next(iter(form.one_of(field).reasons.values()), "")
        for name, field in (("tokenizer", "tokenizer_type"), ("padding", "padding"), ("truncation", "truncation"))
    }
    return {
        "custom": engine == Framework.CUSTOM,
        "unused": form.unused(),
        "quantizing": engine in QUANTIZING,
        "settings": [str(field.label) for field in form.fields.values()],
        "load_formats": _cards(guide.LOAD_FORMATS, "load_format", answers, form),
        "data_types": _cards(guide.DATA_TYPES, "data_type", answers, form),
        "quantizations": _cards(guide.QUANTIZATIONS, "quantization", answers, form),
        **guide.words_of(engine),
        **notes,
    }


def _cards(choices: tuple[guide.Choice, ...], field: str, answers: Context, form: StepForm) -> list[guide.Choice]:
    return _refused(guide.with_checked(choices, answers["llm"].get(field)), form.one_of(field).reasons)


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
        "standard": standard_variables(judged.situation),
    }


def _rows(pairs: list[tuple[str, str]], form: StepForm, field: str) -> list[Context]:
    """The rows as typed, each with its errors, and an empty one to type the next into."""
    wrong = form.row_errors.get(field, {}) if form.errors else {}
    rows = [
        {"place": place, "name": name, "value": value, "errors": wrong.get(place, [])}
        for place, (name, value) in enumerate(pairs)
    ]
    return [*rows, {"place": len(rows), "name": "", "value": "", "errors": []}]


_MORE: Mapping[str, Callable[[Draft, Judged, Context, StepForm], Context]] = {
    "basics": _basics,
    "method": _method,
    "source": _source,
    "machine": _machine,
    "llm": _llm,
    "scaling": _scaling,
    "environment": _environment,
}
