"""The eight steps, in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Step:
    slug: str
    label: str
    title: str
    lead: str
    position: int = 0

    @property
    def template(self) -> str:
        return f"endpoints/wizard/{self.slug}.html"


_ALL = (
    Step(
        "basics",
        "Name and region",
        "Name your endpoint",
        "Its name is part of its address and can't change later.",
    ),
    Step(
        "method", "Deployment method", "Choose how it runs", "The container and the engine that serve the model."
    ),
    Step(
        "source",
        "Model",
        "Choose the model",
        "Where the weights come from. The version is pinned when you deploy.",
    ),
    Step("machine", "Machine", "Choose a machine", "Each instance of the endpoint gets a machine of this size."),
    Step(
        "llm", "LLM settings", "Set up the model", "Lengths, batching and what calls get that don't say otherwise."
    ),
    Step(
        "scaling", "Scaling and billing", "Set the scaling", "How many instances may run, and how they are billed."
    ),
    Step("environment", "Environment", "Set the environment", "What the instances find in their environment."),
    Step(
        "summary", "Summary", "Check and deploy", "Everything you chose. Nothing runs or costs before you deploy."
    ),
)
STEPS: Final = tuple(
    Step(step.slug, step.label, step.title, step.lead, position) for position, step in enumerate(_ALL)
)
BY_SLUG: Final = {step.slug: step for step in STEPS}
FORM_STEPS: Final = tuple(step.slug for step in STEPS[:-1])
LAST: Final = STEPS[-1]


def after(step: Step) -> Step:
    return STEPS[min(step.position + 1, LAST.position)]


def before(step: Step) -> Step:
    return STEPS[max(step.position - 1, 0)]
