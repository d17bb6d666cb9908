"""The eight machines, one region, one small model in the registry, and Alice's browser."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

from accounts.models import Project
from endpoints.gguf import read_facts
from endpoints.models import Draft, ModelVersion, Region, RegisteredModel
from endpoints.wizard import drafts
from tests import make, model_files
from tests.endpoints.wizard.way import Way
from tests.hub import Hub, Repo
from tir_console.up import catalogue


def register(name: str, data: bytes, project: Project | None = None) -> ModelVersion:
    """A model of the registry with its file in the store."""
    path = Path(settings.DATA_DIR) / "models" / name / "model.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    model = RegisteredModel.objects.create(name=name, project=project, license="apache-2.0")
    digest = hashlib.sha256(data).hexdigest()
    facts = read_facts(lambda at, size: data[at : at + size], len(data))
    return ModelVersion.objects.create(
        model=model,
        number=1,
        path=str(path.relative_to(settings.DATA_DIR)),
        files=[{"path": "model.gguf", "size": len(data), "sha256": digest}],
        size_bytes=len(data),
        facts=facts.to_dict(),
    )


@pytest.fixture
def project(db: None) -> Project:
    catalogue.load()
    capacity = make.region("other").capacity
    Region.objects.filter(slug="other").delete()
    Region.objects.filter(slug="local").update(capacity=capacity)
    register("tiny", model_files.gguf())
    return make.project()


@pytest.fixture
def draft(project: Project) -> Draft:
    return drafts.start(project, make.user("alice"))


@pytest.fixture
def way(draft: Draft, client: Client) -> Way:
    """Alice walking through her draft."""
    client.force_login(draft.user)
    return Way(client, draft)


@pytest.fixture
def hub(settings: pytest.FixtureRequest) -> Iterator[Hub]:
    model = model_files.gguf()
    repos = {
        "alice/tiny-GGUF": Repo({"tiny-Q4_0.gguf": model, "tiny-F16.gguf": model, "README.md": b"hi"}),
        "alice/gated": Repo({"tiny.gguf": model}, gated="manual"),
        "alice/torch": Repo({"pytorch_model.bin": b"PK\x03\x04"}),
        "alice/broken": Repo({"broken.gguf": b"not a model at all, by any means"}),
    }
    with Hub(repos, tokens={"hf_good-token-of-alice": {"alice/gated"}}) as running:
        settings.HF_ENDPOINT = running.url  # type: ignore[attr-defined]
        yield running
