"""The form of an import: a source as the wizard asks for it, and which of its files are the version."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from django import forms

from accounts.models import Project
from endpoints.models.version_import import VersionImport
from endpoints.origin import source_of
from endpoints.sources import Found, Source, SourceFile, SourceProblem
from endpoints.sources.bucket import BucketSource
from endpoints.spec import SourceKind, SourceSpec
from endpoints.wizard.fields import PLAIN
from endpoints.wizard.looks import Look, key_of
from endpoints.wizard.situation import Catalogue, Situation
from endpoints.wizard.source_form import SourceForm

KINDS: Final = (SourceKind.HUGGING_FACE, SourceKind.GIT, SourceKind.S3, SourceKind.GCS)
NO_ENGINE: Final = ""  # a version keeps the whole folder, whichever engine loads it later
TOLD: Final = 5  # names of files that a message lists


class ImportForm(SourceForm):
    """Judged as the wizard judges a source; after `test` reached it, `pinned` and `chosen` are what to fetch."""

    only = forms.CharField(
        label="Only these files",
        required=False,
        max_length=400,
        help_text="Names or patterns with spaces between, such as *.safetensors *.json. Empty: all in the folder.",
        widget=forms.TextInput(attrs=PLAIN | {"placeholder": "*.safetensors *.json tokenizer*"}),
    )

    def __init__(self, data: Mapping[str, Any] | None = None, *, situation: Situation, **options: Any) -> None:
        self.chosen: list[SourceFile] = []
        self.pinned: SourceSpec | None = None
        super().__init__(data, situation=situation, **options)

    @classmethod
    def of(cls, project: Project, data: Mapping[str, Any] | None = None, **options: Any) -> ImportForm:
        return cls(data, situation=Situation(Catalogue(project), engine=NO_ENGINE), **options)

    @classmethod
    def again(cls, one: VersionImport, project: Project) -> ImportForm:
        """What an import asked for, to be changed, with what was wrong at its field."""
        typed = {name: value for name, value in one.source.items() if value} | {"only": one.only}
        form = cls.of(project, typed)
        if form.is_valid() and one.message:
            form.add_error(one.field if one.field in form.fields else None, one.message)
        return form

    def prepare(self) -> None:
        self.one_of("kind").choices = [(kind.value, kind.label) for kind in KINDS]
        self.fields["kind"].initial = SourceKind.HUGGING_FACE
        super().prepare()

    def dotted(self, name: str) -> str:
        return name if name == "only" else super().dotted(name)

    def test(self) -> Look | None:
        """Reach the source and choose its files; None, with the error at its field, when that doesn't work."""
        wanted = self.spec()
        try:
            source = source_of(wanted, self.situation.project)
            found = source.check(NO_ENGINE)
        except SourceProblem as problem:
            self.problem = problem
            self.add_error(problem.field if problem.field in self.fields else None, problem.message)
            return None
        self.chosen = self._chosen(found)
        if not self.chosen:
            return None
        self.pinned = replace(wanted, revision=_pin(source, found, self.chosen))
        found = replace(found, revision=self.pinned.revision, files=tuple(self.chosen))
        self.seen = Look(key_of(wanted, NO_ENGINE), found)
        return self.seen

    def _chosen(self, found: Found) -> list[SourceFile]:
        patterns = str(self.cleaned_data.get("only") or "").replace(",", " ").split()
        if not patterns:
            return list(found.files)
        chosen = [file for file in found.files if any(fnmatch.fnmatchcase(file.path, one) for one in patterns)]
        if not chosen:
            there = ", ".join(file.path for file in found.files[:TOLD])
            more = f" and {len(found.files) - TOLD} more" if len(found.files) > TOLD else ""
            self.add_error("only", f"No file there is named so. There is: {there}{more}.")
        return chosen


def _pin(source: Source, found: Found, files: list[SourceFile]) -> str:
    """A commit holds all its files; a bucket is pinned to those that are fetched."""
    return source.pin([file.path for file in files]) if isinstance(source, BucketSource) else found.revision
