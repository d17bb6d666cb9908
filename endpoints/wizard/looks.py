"""What a check of the model source saw, kept with the draft so that pages needn't ask again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from accounts.models import Project
from endpoints.gguf import GGUFFacts
from endpoints.memory import ModelShape, shape_from_config, shape_from_gguf
from endpoints.models import ModelVersion
from endpoints.origin import source_of
from endpoints.sources import Choice, Found, SourceFile
from endpoints.sources.layout import GGUF, NEEDS, SUITS, kinds_of
from endpoints.spec import Framework, SourceKind, SourceSpec
from endpoints.wizard.source_kinds import KINDS

CREDENTIALS = frozenset({"username", "access_key", "token_secret", "host_key"})
NOTHING = Found("", (), (), "", None)


@dataclass(frozen=True)
class Look:
    """`source` is what was asked for (`key_of`), `found` what is there, pinned."""

    source: Mapping[str, Any]
    found: Found

    @property
    def facts(self) -> GGUFFacts | None:
        return self.found.facts

    @property
    def shape(self) -> ModelShape | None:
        """None where nothing says how large the model is."""
        if self.found.facts:
            return shape_from_gguf(self.found.facts)
        weights = self.found.weights
        if weights is None or not weights.bytes or not weights.config:
            return None
        return replace(shape_from_config(weights.config, weights.bytes), parameter_count=weights.parameters)

    @property
    def file(self) -> str:
        """The chosen file; "" for an engine that loads the folder."""
        return str(self.source.get("file") or self.found.default_file)

    @property
    def size(self) -> int | None:
        """Bytes of the chosen file with all its shards, or of the whole folder."""
        if not self.found.choices:
            return sum(file.size for file in self.found.files) or None
        sizes = [choice.size for choice in self.found.choices if self.file in choice.files]
        return sizes[0] if sizes else None

    def of(self, source: SourceSpec, engine: str) -> bool:
        """Whether this is what a check of `source` for this engine would look at."""
        return dict(self.source) == key_of(source, engine)

    def to_dict(self) -> dict[str, Any]:
        return {"source": dict(self.source), "found": self.found.to_dict()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Look | None:
        """None where nothing is stored."""
        if not stored:
            return None
        return cls(stored["source"], Found.from_dict(stored["found"]))


def key_of(source: SourceSpec, engine: str) -> dict[str, Any]:
    """What tells one look from another; a credential changes what may be seen, not what is there."""
    kind = KINDS[source.kind]
    named = {name: getattr(source, name) for name in kind.fields if name not in CREDENTIALS}
    return {"kind": str(source.kind), "engine": str(engine)} | named


def look_at_nothing(source: SourceSpec, engine: str) -> Look:
    """Of an image that brings its own model."""
    return Look(key_of(source, engine), NOTHING)


def look_at_version(source: SourceSpec, engine: str, version: ModelVersion) -> Look | None:
    """What the registry says of a version: no file is opened, no network used. None for an engine that wants the
    whole folder judged."""
    if engine != Framework.LLAMA_CPP or version.kind != GGUF:
        return None
    files = tuple(SourceFile(file["path"], int(file["size"]), file.get("sha256")) for file in version.files)
    facts = GGUFFacts.from_dict(version.facts) if version.facts else None
    choice = Choice(version.main, (version.main,), version.size_bytes)
    found = Found(str(version.number), files, (choice,), version.main, facts, version.model.license)
    return Look(key_of(source, engine), found)


def misfit(version: ModelVersion, engine: str) -> str:
    """Why this engine can't load this version, by the names of its files; empty if it can, or may."""
    files = [SourceFile(file["path"], int(file["size"])) for file in version.files]
    suits = SUITS.get(engine)
    return "" if suits is None or set(suits) & set(kinds_of(files)) else NEEDS[engine]


def reach(source: SourceSpec, project: Project, engine: str) -> Look:
    """Reach the source as the deployment will. SourceProblem says what is wrong, with the field to mend."""
    if source.kind == SourceKind.NONE:
        return look_at_nothing(source, engine)
    return Look(key_of(source, engine), source_of(source, project).check(engine))
