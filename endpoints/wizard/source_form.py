"""The third step: which model, of which version, with which token."""

from __future__ import annotations

import re
from typing import Any

from django import forms

from endpoints.sources import SourceProblem
from endpoints.spec import SourceKind, SourceSpec
from endpoints.wizard.fields import OneOf
from endpoints.wizard.forms import StepForm
from endpoints.wizard.looks import Look, reach

MODEL_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$", re.ASCII)
PLAIN = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "off"}


class SourceForm(StepForm):
    """Only the chosen kind's fields are looked at; the other kind's answers stay as they were typed."""

    section = "source"
    kind = OneOf("Model source", SourceKind.choices, initial=SourceKind.REGISTRY)
    model = forms.CharField(label="Model", required=False, max_length=80)
    version = forms.IntegerField(label="Version", required=False, min_value=0, max_value=2**31 - 1)
    model_id = forms.CharField(
        label="Model ID",
        required=False,
        max_length=200,
        help_text="As in its address on the Hub: owner/name.",
        widget=forms.TextInput(attrs=PLAIN | {"placeholder": "bartowski/SmolLM2-135M-Instruct-GGUF"}),
    )
    revision = forms.CharField(
        label="Branch, tag or commit",
        required=False,
        max_length=200,
        initial="main",
        help_text="Pinned to its commit when you test the connection.",
        widget=forms.TextInput(attrs=PLAIN),
    )
    file = forms.CharField(
        label="File in the repository",
        required=False,
        max_length=400,
        help_text="A GGUF file. Empty: the console proposes one.",
        widget=forms.TextInput(attrs=PLAIN | {"list": "source-files"}),
    )
    token_secret = OneOf("Access token", [], required=False, help_text="Only for gated or private models.")

    def prepare(self) -> None:
        secrets = [(name, name) for name in self.situation.catalogue.secrets]
        self.one_of("token_secret").choices = [("", "No token"), *secrets]
        self.problem: SourceProblem | None = None

    def clean(self) -> dict[str, Any]:
        kind = self.cleaned_data.get("kind")
        if kind == SourceKind.REGISTRY:
            self._forget("model_id", "revision", "file", "token_secret")
            self._clean_registry()
        elif kind == SourceKind.HUGGING_FACE:
            self._forget("model", "version")
            self._clean_hub()
        return self.cleaned_data

    def _forget(self, *names: str) -> None:
        for name in names:
            self.errors.pop(name, None)
            self.cleaned_data[name] = self.fields[name].initial or ""

    def _clean_registry(self) -> None:
        models = self.situation.catalogue.models
        name, number = self.cleaned_data.get("model") or "", self.cleaned_data.get("version") or 0
        if name not in models:
            there = f"There is: {', '.join(sorted(models))}." if models else "The registry is empty: register one."
            missing = f"There is no model “{name}” in the registry." if name else "Choose a model."
            self.add_error("model", f"{missing} {there}")
        elif self.situation.catalogue.version(name, number) is None:
            numbers = ", ".join(str(version.number) for version in models[name].versions.all())
            self.add_error("version", f"“{name}” has no version {number}. There is: {numbers or 'none'}.")

    def _clean_hub(self) -> None:
        model_id = self.cleaned_data.get("model_id") or ""
        self.cleaned_data["revision"] = self.cleaned_data.get("revision") or "main"
        if not model_id:
            self.add_error("model_id", "Give the model's ID, such as bartowski/SmolLM2-135M-Instruct-GGUF.")
        elif not MODEL_ID.match(model_id):
            self.add_error("model_id", f"“{model_id}” is no model ID. It has the form owner/name.")
        file = self.cleaned_data.get("file") or ""
        if file and not file.lower().endswith(".gguf"):
            self.add_error("file", f"llama.cpp needs a GGUF file; “{file}” isn't one by its name.")
        if file.startswith("/") or ".." in file.split("/"):
            self.add_error("file", "Give the file's path inside the repository.")

    def spec(self) -> SourceSpec:
        """Only of a form without errors."""
        cleaned = self.cleaned_data
        if cleaned["kind"] == SourceKind.REGISTRY:
            return SourceSpec(kind=cleaned["kind"], model=cleaned["model"], version=cleaned["version"] or 0)
        return SourceSpec(
            kind=cleaned["kind"],
            model_id=cleaned["model_id"],
            revision=cleaned["revision"],
            file=cleaned["file"],
            token_secret=cleaned["token_secret"],
        )

    def test(self) -> Look | None:
        """Reach the source; None, with the error at its field, when that doesn't work."""
        source = self.spec()
        version = self.situation.catalogue.version(source.model, source.version)
        try:
            return reach(source, self.situation.project, version)
        except SourceProblem as problem:
            self.problem = problem
            field = problem.field if problem.field in self.fields else None
            self.add_error(field, problem.message)
            return None
