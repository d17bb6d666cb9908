"""The third step: which model, of which version, with which credential."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, Final
from urllib.parse import urlsplit

from django import forms

from endpoints import offers
from endpoints.sources import SourceProblem
from endpoints.sources.git_address import Address
from endpoints.spec import Framework, SourceKind, SourceSpec
from endpoints.wizard.fields import PLAIN, OneOf
from endpoints.wizard.forms import StepForm
from endpoints.wizard.looks import Look, misfit, reach
from endpoints.wizard.source_kinds import KINDS

MODEL_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$", re.ASCII)
BUCKET = re.compile(r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$", re.ASCII)
OTHER_KIND: Final = "This kind of source doesn't have it."
MOST_PROBLEMS: Final = 3  # told at once; the report has all
NO_FILE: Final = "Only llama.cpp loads one file; every other engine gets the whole folder."
IN_URL: Final = "Leave user and password out of the address: the draft doesn't keep them. Store them as a secret."


def _text(label: str, hint: str = "", most: int = 400, **attrs: str) -> forms.CharField:
    widget = forms.TextInput(attrs=PLAIN | attrs)
    return forms.CharField(label=label, required=False, max_length=most, help_text=hint, widget=widget)


class SourceForm(StepForm):
    """Only the chosen kind's fields are looked at."""

    section = "source"
    kind = OneOf("Model source", SourceKind.choices, initial=SourceKind.REGISTRY)
    model = forms.CharField(label="Model", required=False, max_length=80)
    version = forms.IntegerField(label="Version", required=False, min_value=0, max_value=2**31 - 1)
    model_id = _text(
        "Model ID", "As in its address on the Hub: owner/name.", placeholder="bartowski/SmolLM2-135M-Instruct-GGUF"
    )
    url = _text("Address", most=1000)
    bucket = _text("Bucket", "Its name alone, without s3:// or gs://.", most=222)
    revision = _text("Branch, tag or commit", "Pinned to its commit when you test the connection.", 200)
    path = _text("Folder of the model", "Inside the source. Empty: its root.")
    file = _text("File", "A GGUF file in that folder. Empty: the console proposes one.", list="source-files")
    region = _text("Region of the bucket", "Empty: us-east-1.", 60, placeholder="ap-south-1")
    access_key = _text("Access key ID", most=200)
    username = _text("User name", "Only where the server wants one beside the token.", 200)
    token_secret = OneOf("Access token", [], required=False, help_text="Only for gated or private models.")
    host_key = forms.CharField(
        label="Host key of the server",
        required=False,
        max_length=4000,
        help_text=(
            "Only for ssh. As in a known_hosts file, such as from ssh-keyscan; compare it with what the server's "
            "owner publishes. Leave it empty and test the connection to see the key that the server shows."
        ),
        widget=forms.Textarea(attrs=PLAIN | {"rows": 2, "class": "mono"}),
    )

    def prepare(self) -> None:
        secrets = [(name, name) for name in self.situation.catalogue.secrets]
        self.one_of("token_secret").choices = [("", "None"), *secrets]
        self.problem: SourceProblem | None = None
        self.seen: Look | None = None
        engine = self.situation.engine
        reasons = {kind: offers.source_reason(engine, kind) for kind in SourceKind.values}
        self.one_of("kind").refuse({kind: why for kind, why in reasons.items() if why})
        self.fields["revision"].initial = SourceSpec.revision
        kind = KINDS.get(str(self.shown("kind")))
        for name, (label, hint) in kind.words.items() if kind else ():
            self.fields[name].label, self.fields[name].help_text = label, hint

    def unused(self) -> dict[str, str]:
        kind = KINDS.get(self.cleaned_data.get("kind") or "")
        if kind is None:
            return {}
        found = {one.name: OTHER_KIND for one in fields(SourceSpec) if one.name not in ("kind", *kind.fields)}
        return found if self.situation.engine == Framework.LLAMA_CPP else found | {"file": NO_FILE}

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        self.forget(*self.unused())
        for name in ("path", "file"):
            self._clean_path(name)
        match cleaned.get("kind"):
            case SourceKind.REGISTRY:
                self._clean_registry()
            case SourceKind.HUGGING_FACE:
                self._clean_hub()
            case SourceKind.GIT:
                self._clean_git()
            case SourceKind.S3 | SourceKind.GCS:
                self._clean_bucket()
        return cleaned

    def _clean_path(self, name: str) -> None:
        given = str(self.cleaned_data.get(name) or "")
        self.cleaned_data[name] = given.strip("/") if name == "path" else given
        if (name == "file" and given.startswith("/")) or ".." in given.split("/") or "\\" in given:
            self.add_error(name, "Give the path inside the source, with “/” between its parts and without “..”.")
        elif name == "file" and given and not given.lower().endswith(".gguf"):
            self.add_error("file", f"llama.cpp needs a GGUF file; “{given}” isn't one by its name.")

    def _clean_registry(self) -> None:
        models = self.situation.catalogue.models
        name, number = self.cleaned_data.get("model") or "", self.cleaned_data.get("version") or 0
        if name not in models:
            there = f"There is: {', '.join(sorted(models))}." if models else "The registry is empty: register one."
            missing = f"There is no model “{name}” in the registry." if name else "Choose a model."
            self.add_error("model", f"{missing} {there}")
        elif version := self.situation.catalogue.version(name, number):
            if why := misfit(version, self.situation.engine):
                self.add_error("version", why)
        else:
            numbers = ", ".join(str(version.number) for version in models[name].versions.all())
            self.add_error("version", f"“{name}” has no version {number}. There is: {numbers or 'none'}.")

    def _clean_hub(self) -> None:
        model_id = self.cleaned_data.get("model_id") or ""
        self._revision()
        if not model_id:
            self.add_error("model_id", "Give the model's ID, such as bartowski/SmolLM2-135M-Instruct-GGUF.")
        elif not MODEL_ID.match(model_id):
            self.add_error("model_id", f"“{model_id}” is no model ID. It has the form owner/name.")

    def _revision(self) -> None:
        given = self.cleaned_data.get("revision") or SourceSpec.revision
        self.cleaned_data["revision"] = given
        if given.startswith("-") or any(letter.isspace() for letter in given):
            self.add_error("revision", "Give the name of a branch or tag, or a commit.")

    def _clean_git(self) -> None:
        url = self.cleaned_data.get("url") or ""
        self._revision()
        if not url:
            self.add_error("url", "Give the repository's address, such as https://git.example.com/team/model.git.")
            return
        try:
            Address.of(url)
        except SourceProblem as problem:
            self.add_error("url", problem.message)

    def _clean_service(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018  raises where it is no number
        except ValueError:
            parts = urlsplit("")
        if parts.username or parts.password:
            self.add_error("url", IN_URL)
        elif parts.scheme not in ("https", "http") or not parts.hostname:
            self.add_error("url", f"“{url}” is no address of a service. It begins with https://.")

    def _clean_bucket(self) -> None:
        cleaned, bucket = self.cleaned_data, self.cleaned_data.get("bucket") or ""
        if not bucket:
            self.add_error("bucket", "Give the bucket's name.")
        elif not BUCKET.match(bucket):
            self.add_error("bucket", f"“{bucket}” is no bucket's name: small letters, digits, dots and hyphens.")
        if url := cleaned.get("url"):
            self._clean_service(url)
        if cleaned.get("kind") != SourceKind.S3:
            return
        key, secret = cleaned.get("access_key") or "", cleaned.get("token_secret") or ""
        if key and not secret and "token_secret" not in self.errors:
            self.add_error("token_secret", "Choose the secret that holds this key's secret half.")
        if secret and not key:
            self.add_error("access_key", "Give the ID of the key whose secret half you chose.")

    def spec(self) -> SourceSpec:
        """Only of a form without errors."""
        kind = self.cleaned_data["kind"]
        named = {name: self.cleaned_data[name] for name in KINDS[kind].fields}
        if kind == SourceKind.REGISTRY:
            named["version"] = named["version"] or 0
        if "revision" not in named and kind != SourceKind.REGISTRY:
            named["revision"] = ""
        return SourceSpec(kind=kind, **named)

    def see(self, look: Look | None) -> None:
        """Refuse a model that the engine can't load, with what is missing or wrong in its folder."""
        self.seen = look
        layout = look.found.layout if look else None
        for note in layout.problems[:MOST_PROBLEMS] if layout else ():
            self.add_error("version" if self.cleaned_data["kind"] == SourceKind.REGISTRY else "path", note.said)

    def test(self) -> Look | None:
        """Reach the source; None, with the error at its field, when that doesn't work."""
        try:
            look = reach(self.spec(), self.situation.project, self.situation.engine)
        except SourceProblem as problem:
            self.problem = problem
            field = problem.field if problem.field in self.fields else None
            self.add_error(field, problem.message)
            return None
        self.see(look)
        return look
