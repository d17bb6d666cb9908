"""What a check of the model source saw, kept with the draft so that pages needn't ask again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accounts.models import Project
from endpoints.gguf import GGUFFacts
from endpoints.memory import ModelShape, shape_from_config, shape_from_gguf
from endpoints.models import ModelVersion
from endpoints.origin import source_of
from endpoints.sources import Choice, Found, SourceFile
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
        return shape_from_config(weights.config, weights.bytes) if weights and weights.bytes else None

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


def look_at_version(source: SourceSpec, engine: str, version: ModelVersion) -> Look:
    """What the registry says of a version: no file is opened, no network used."""
    files = tuple(SourceFile(file["path"], int(file["size"]), file.get("sha256")) for file in version.files)
    main = version.path.rpartition("/")[2]
    facts = GGUFFacts.from_dict(version.facts) if version.facts else None
    if engine != Framework.LLAMA_CPP:
        return Look(key_of(source, engine), Found(str(version.number), files, (), "", None, version.model.license))
    choice = Choice(main, (main,), version.size_bytes)
    found = Found(str(version.number), files, (choice,), main, facts, version.model.license)
    return Look(key_of(source, engine), found)


def reach(source: SourceSpec, project: Project, engine: str) -> Look:
    """Reach the source as the deployment will. SourceProblem says what is wrong, with the field to mend."""
    if source.kind == SourceKind.NONE:
        return look_at_nothing(source, engine)
    return Look(key_of(source, engine), source_of(source, project).check(engine))
