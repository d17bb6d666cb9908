"""All steps judged together, in their order: each with what the ones before it answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from endpoints.images.requirements import Line
from endpoints.spec import LlmSpec, SourceKind, SourceSpec, Spec
from endpoints.wizard import machines
from endpoints.wizard.environment_form import EnvironmentForm, standard_variables
from endpoints.wizard.forms import BasicsForm, MachineForm, ScalingForm, StepForm, own_figure
from endpoints.wizard.image_look import ImageLook, lines_of
from endpoints.wizard.llm_form import LlmForm, numbers
from endpoints.wizard.looks import Look
from endpoints.wizard.method_form import MethodForm
from endpoints.wizard.situation import Catalogue, Situation
from endpoints.wizard.source_form import SourceForm
from endpoints.wizard.source_kinds import KINDS

Answers = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Judged:
    """Every step's bound form, judged, and what they say together."""

    basics: BasicsForm
    method: MethodForm
    source: SourceForm
    machine: MachineForm
    llm: LlmForm
    scaling: ScalingForm
    environment: EnvironmentForm
    situation: Situation

    def form(self, step: str) -> StepForm:
        return self.forms()[step]

    def forms(self) -> dict[str, StepForm]:
        return {
            "basics": self.basics,
            "method": self.method,
            "source": self.source,
            "machine": self.machine,
            "llm": self.llm,
            "scaling": self.scaling,
            "environment": self.environment,
        }

    @property
    def valid(self) -> bool:
        return all(form.is_valid() for form in self.forms().values())

    def errors(self) -> dict[str, list[str]]:
        """By the field's name in JSON, such as "llm.top_k"; "" for what is no field's."""
        found: dict[str, list[str]] = {}
        for form in self.forms().values():
            for name, problems in form.errors.items():
                dotted = form.dotted(name) if name != "__all__" else form.section
                found.setdefault(dotted, []).extend(str(problem) for problem in problems)
        return found

    def image_lines(self) -> list[Line]:
        """What the image brings of what it must, as its last check saw it; none if it wasn't checked."""
        look, source = self.situation.image, self.situation.source
        if look is None:
            return []
        brings = source is not None and source.kind == SourceKind.NONE
        model = "" if brings else standard_variables(self.situation)["MODEL_PATH"].value
        return lines_of(look, self.method.container(), self.situation.region, model=model)

    def spec(self) -> Spec:
        """Only when valid."""
        return Spec(
            name=self.basics.cleaned_data["name"],
            region=self.basics.cleaned_data["region"],
            instance_type=self.machine.cleaned_data["instance_type"],
            memory_gib=self.machine.cleaned_data["memory_gib"],
            source=self._pinned(),
            method=self.method.cleaned_data["method"],
            framework=self.method.cleaned_data["framework"],
            framework_version=self.method.cleaned_data["framework_version"],
            container=self.method.container(),
            llm=self.llm.spec(),
            scaling=self.scaling.spec(),
            environment=self.environment.spec(),
        )

    def _pinned(self) -> SourceSpec:
        """A branch or tag becomes the commit that was looked at, an open choice the file that was."""
        source, look = self.source.spec(), self.situation.look
        if look is None or source.kind in (SourceKind.REGISTRY, SourceKind.NONE):
            return source
        revision = look.found.revision if "revision" in KINDS[source.kind].fields else source.revision
        return replace(source, revision=revision, file=look.file)


def judge(
    answers: Answers,
    catalogue: Catalogue,
    *,
    look: Look | None = None,
    image: ImageLook | None = None,
    reach: bool = False,
) -> Judged:
    """`look`, `image`: what earlier checks saw, used if of this source and this image. `reach`: check the source
    now otherwise."""
    llm = dict(answers.get("llm", {}))
    length, batch, data_type = numbers(llm)
    quantization = str(llm.get("quantization") or LlmSpec.quantization)
    situation = Situation(catalogue, data_type=data_type, quantization=quantization)
    basics = BasicsForm(answers.get("basics", {}), situation=situation)
    region = catalogue.regions.get(basics.cleaned_data.get("region", "")) if basics.errors is not None else None
    situation = replace(situation, region=region)
    method = MethodForm(answers.get("method", {}), situation=situation)
    situation = replace(situation, engine=method.engine, image=method.known(image))
    source, situation = _source(answers, situation, look, reach)
    situation = replace(situation, memory_gib=own_figure(answers.get("machine", {})))
    machine_answers = answers.get("machine") or {
        "instance_type": machines.recommended(situation, length=length, concurrency=batch, data_type=data_type)
    }
    machine = MachineForm(machine_answers, situation=situation)
    if machine.is_valid():
        situation = replace(situation, machine=catalogue.types[machine.cleaned_data["instance_type"]])
    else:
        chosen = catalogue.types.get(str(machine_answers.get("instance_type", "")))
        situation = replace(situation, machine=chosen)
    judged = Judged(
        basics=basics,
        method=method,
        source=source,
        machine=machine,
        llm=LlmForm(llm, situation=situation),
        scaling=ScalingForm(answers.get("scaling", {}), situation=situation),
        environment=EnvironmentForm(answers.get("environment", {}), situation=situation),
        situation=situation,
    )
    for form in judged.forms().values():
        if form is not source:  # judged already; cleaned again it would forget what reaching the source told
            form.full_clean()
    return judged


def _source(
    answers: Answers, situation: Situation, stored: Look | None, reach: bool
) -> tuple[SourceForm, Situation]:
    form = SourceForm(answers.get("source", {}), situation=situation)
    if not form.is_valid():
        return form, situation
    situation = situation.with_source(form.spec(), stored)
    if reach and (situation.look is None or stored is None):
        look = form.test()
        return form, replace(situation, look=look or situation.look)
    form.see(situation.look)
    return form, situation
