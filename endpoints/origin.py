"""From a source as a person named it to the source that can be asked: finds the version, opens the secret."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from django.conf import settings

from accounts.models import Project
from endpoints.models import ModelVersion, RegisteredModel, Secret, Undecryptable
from endpoints.models.registry import store as store  # noqa: PLC0414 (others ask for it here)
from endpoints.sources import Source, SourceProblem, source_for
from endpoints.spec import SourceKind, SourceSpec


def source_of(wanted: SourceSpec, project: Project) -> Source:
    """Raises SourceProblem when the registry, or the project's secrets, don't have what is named."""
    asked = asdict(wanted)
    if wanted.kind == SourceKind.REGISTRY:
        version = version_of(wanted, project)
        path = str(Path(settings.DATA_DIR) / version.path)
        asked |= {"path": path, "files": version.files, "version": str(version.number)}
        asked |= {"facts": version.facts}
    token = revealed(wanted.token_secret, project, "token_secret") if wanted.token_secret else None
    return source_for(
        asked, store=store(), token=token, hub=settings.HF_ENDPOINT, private=settings.SOURCES_ALLOW_PRIVATE
    )


def version_of(wanted: SourceSpec, project: Project) -> ModelVersion:
    """The version in the project's own registry, else in the one that all share."""
    model = RegisteredModel.objects.named(wanted.model, project)
    if model is None:
        raise SourceProblem("no_such_model", f"The registry has no model “{wanted.model}”.", "model")
    version = model.versions.filter(number=wanted.version).first()
    if version is None:
        raise SourceProblem("no_such_version", f"“{model.name}” has no version {wanted.version}.", "version")
    return version


def revealed(name: str, project: Project, field: str) -> str:
    """A stored secret's value. SourceProblem for this setting where there is none."""
    secret = Secret.objects.filter(project=project, name=name).first()
    if secret is None:
        raise SourceProblem("no_such_secret", f"There is no secret “{name}”. Store it first.", field)
    try:
        return secret.reveal()
    except Undecryptable as problem:
        raise SourceProblem("secret_unreadable", str(problem), field) from None
