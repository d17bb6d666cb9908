"""What a check of the model source saw, kept with the draft so that pages needn't ask again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from accounts.models import Project
from endpoints.gguf import GGUFFacts
from endpoints.memory import ModelShape, shape_from_gguf
from endpoints.models import ModelVersion, Secret
from endpoints.models.secret import Undecryptable
from endpoints.sources import Choice, Found, SourceFile, SourceProblem, source_for
from endpoints.spec import SourceKind, SourceSpec


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
        return shape_from_gguf(self.found.facts) if self.found.facts else None

    @property
    def file(self) -> str:
        return str(self.source.get("file") or self.found.default_file)

    @property
    def size(self) -> int | None:
        """Bytes of the chosen file, with all its shards."""
        sizes = [choice.size for choice in self.found.choices if self.file in choice.files]
        return sizes[0] if sizes else None

    def of(self, source: SourceSpec) -> bool:
        """Whether this is what a check of `source` would look at."""
        return dict(self.source) == key_of(source)

    def to_dict(self) -> dict[str, Any]:
        return {"source": dict(self.source), "found": self.found.to_dict()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Look | None:
        """None where nothing is stored."""
        if not stored:
            return None
        return cls(stored["source"], Found.from_dict(stored["found"]))


def key_of(source: SourceSpec) -> dict[str, Any]:
    """What tells one source from another; a token changes what may be seen, not what is there."""
    if source.kind == SourceKind.REGISTRY:
        return {"kind": str(source.kind), "model": source.model, "version": source.version}
    return {
        "kind": str(source.kind),
        "model_id": source.model_id,
        "revision": source.revision,
        "file": source.file,
    }


def look_at_version(source: SourceSpec, version: ModelVersion) -> Look:
    """What the registry says of a version: no file is opened, no network used."""
    files = tuple(SourceFile(file["path"], int(file["size"]), file.get("sha256")) for file in version.files)
    main = version.path.rpartition("/")[2]
    facts = GGUFFacts.from_dict(version.facts) if version.facts else None
    choice = Choice(main, (main,), version.size_bytes)
    found = Found(str(version.number), files, (choice,), main, facts, version.model.license)
    return Look(key_of(source), found)


def reach(source: SourceSpec, project: Project, version: ModelVersion | None) -> Look:
    """Reach the source as the deployment will. SourceProblem says what is wrong, with the field to mend."""
    wish: dict[str, Any] = key_of(source)
    if version is not None:
        wish |= {"path": version.path, "files": version.files}
    store = Path(settings.DATA_DIR)
    token = _token(source, project)
    found = source_for(wish, store=store, token=token, hub=settings.HF_ENDPOINT).check()
    return Look(key_of(source), found)


def _token(source: SourceSpec, project: Project) -> str | None:
    if source.kind == SourceKind.REGISTRY or not source.token_secret:
        return None
    secret = Secret.objects.filter(project=project, name=source.token_secret).first()
    if secret is None:
        message = f"There is no secret “{source.token_secret}” in this project. Store it first."
        raise SourceProblem("no_secret", message, "token_secret")
    try:
        return secret.reveal()
    except Undecryptable as problem:
        raise SourceProblem("secret_unreadable", str(problem), "token_secret") from None
