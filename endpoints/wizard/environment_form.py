"""The seventh step: variables and references to secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from endpoints.models.catalogue import RuntimeKind
from endpoints.spec import MODEL_SERVERS, EnvironmentSpec, Framework, LogLevel, SourceKind
from endpoints.wizard.fields import OneOf, Pairs, Rows, whole
from endpoints.wizard.forms import StepForm
from endpoints.wizard.situation import Situation

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", re.ASCII)
MOST_ROWS = 100
LONGEST_VALUE = 4096
OURS = re.compile(r"^(TIR_.*|PATH|LD_.*|DYLD_.*|PYTHON.*|HOME|SHELL|IFS|BASH_ENV|ENV)$", re.ASCII | re.IGNORECASE)
OWN_FIELDS = {
    "MODEL_PATH": "MODEL_PATH is set by the platform to where the model's file lies.",
    "MAX_WORKERS": "MAX_WORKERS has its own field above.",
    "LOG_LEVEL": "LOG_LEVEL has its own field above.",
    **{
        name: f"{name} can't be chosen: an instance sees its own GPUs and no others."
        for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
    },
}
CACHE = "TRANSFORMERS_CACHE"
SECRET_SHAPES = (
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "a Hugging Face token"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), "an API key"),
    (re.compile(r"\btir_[0-9a-f]{8}_[\w-]{8,}"), "a TIR API key"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{8,}"), "an AWS access key"),
    (re.compile(r"\b(ghp|gho|ghs|ghu)_[A-Za-z0-9]{8,}|\bgithub_pat_\w{8,}"), "a GitHub token"),
    (re.compile(r"\bxox[abpr]-[A-Za-z0-9-]{8,}"), "a Slack token"),
    (re.compile(r"PRIVATE KEY"), "a private key"),
)


def secret_kind(value: str) -> str:
    """What kind of secret a value looks like; empty for none."""
    return next((kind for shape, kind in SECRET_SHAPES if shape.search(value)), "")


def without_secrets(rows: Pairs) -> Pairs:
    """The rows with every value left out that must not be kept, shown or logged."""
    return [(name, "" if secret_kind(value) else value) for name, value in rows]


WORKERS: dict[str, str] = {
    **dict.fromkeys(MODEL_SERVERS, "Calls of the model that an instance makes at the same time."),
    Framework.LLAMA_CPP: "Threads that hold an instance's connections.",
    Framework.VLLM: "vLLM holds as many connections as come and doesn't use it.",
    Framework.CUSTOM: "Your image may read it.",
}


@dataclass(frozen=True)
class Standard:
    """One of the specification's variables that nobody types: its value where that is known, and what it is."""

    value: str
    hint: str


def standard_variables(situation: Situation) -> dict[str, Standard]:
    """MODEL_PATH, CUDA_VISIBLE_DEVICES and TRANSFORMERS_CACHE as an instance will find them."""
    in_container = situation.region is not None and situation.region.runtime != RuntimeKind.PROCESS
    path = f"/opt/model/{situation.look.file if situation.look else ''}".rstrip("/") if in_container else ""
    where = "the model's file" if situation.engine == Framework.LLAMA_CPP else "the model's folder"
    told = f"Required. Where {where} lies; set by the platform."
    if situation.source and situation.source.kind == SourceKind.NONE:
        path, told = "not set", "The image brings its own model."
    gpu = situation.machine is not None and situation.machine.has_gpu
    cuda = "The instance sees its own GPUs and no others." if gpu else "Only for GPU machines; yours has none."
    return {
        "MODEL_PATH": Standard(path, told),
        "CUDA_VISIBLE_DEVICES": Standard("", cuda),
        CACHE: Standard("", _cache_hint(situation.engine)),
    }


def _cache_hint(engine: str) -> str:
    if engine == Framework.LLAMA_CPP:
        return "llama.cpp doesn't use it: it reads one model file and keeps no cache."
    return "Not set: add it below if your model's code needs a place for what it fetches."


class EnvironmentForm(StepForm):
    section = "environment"
    max_workers = whole("max_workers", "MAX_WORKERS", "workers", "Threads that hold an instance's connections.")
    log_level = OneOf("LOG_LEVEL", LogLevel.choices, initial=LogLevel.INFO, help_text="How much instances log.")
    variables = Rows("Variables")
    secrets = Rows("Secrets")

    def prepare(self) -> None:
        self.fields["max_workers"].help_text = f"{WORKERS[self.situation.engine]} 1–64, usually 4."

    def clean(self) -> dict[str, Any]:
        taken: set[str] = set()
        for field in ("variables", "secrets"):
            rows: Pairs = self.cleaned_data.get(field) or []
            if len(rows) > MOST_ROWS:
                self.add_error(field, f"At most {MOST_ROWS} rows are possible; there are {len(rows)}.")
            for place, (name, value) in enumerate(rows[:MOST_ROWS]):
                problems = _name_problems(name, taken) or self._cache_problems(name)
                problems += self._secret_problems(value) if field == "secrets" else _value_problems(name, value)
                taken.add(name)
                for problem in problems:
                    self._at_row(field, place, name, problem)
        return self.cleaned_data

    def _cache_problems(self, name: str) -> list[str]:
        if name != CACHE or self.situation.engine != Framework.LLAMA_CPP:
            return []
        return [_cache_hint(self.situation.engine)]

    def _at_row(self, field: str, place: int, name: str, problem: str) -> None:
        self.row_errors.setdefault(field, {}).setdefault(place, []).append(problem)
        self.add_error(field, f"{name or f'Row {place + 1}'}: {problem}")

    def _secret_problems(self, stored: str) -> list[str]:
        if not stored:
            return ["Choose the stored secret that this variable takes its value from."]
        if stored not in self.situation.catalogue.secrets:
            return ["There is no such secret in this project. Store it first, then choose it."]
        return []

    def spec(self) -> EnvironmentSpec:
        values = self.cleaned_data
        return EnvironmentSpec(
            max_workers=values["max_workers"],
            log_level=values["log_level"],
            variables=dict(values["variables"]),
            secrets=dict(values["secrets"]),
        )


def _name_problems(name: str, taken: set[str]) -> list[str]:
    if not name:
        return ["Give the variable a name."]
    if not NAME.match(name):
        return ["A name has letters, digits and underscores and doesn't begin with a digit."]
    if name in OWN_FIELDS:
        return [OWN_FIELDS[name]]
    if OURS.match(name):
        return ["This name is reserved: it decides how an instance starts. Choose another."]
    if name in taken:
        return ["This name is used twice. Keep one of them."]
    return []


def _value_problems(name: str, value: str) -> list[str]:
    if "\0" in value:
        return ["The value holds a NUL character, which no environment can."]
    if len(value) > LONGEST_VALUE:
        return [f"The value has {len(value):,} characters; at most {LONGEST_VALUE:,} are possible."]
    if kind := secret_kind(value):
        return [f"The value looks like {kind}, so it was not kept. Store it as a secret and refer to it below."]
    return []
