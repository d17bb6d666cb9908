"""Models of one's own in containers, through the real controller: a model.py, and an ONNX file without code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings

from endpoints.models import Endpoint, ModelVersion, RegisteredModel
from endpoints.regions import runtime_of
from endpoints.runtimes.docker.runtime import DockerRuntime
from endpoints.spec import Framework, SourceSpec
from endpoints.status import Status
from tests import make
from tests.docker.engine import Engine
from tests.docker.python_image import prebuilt
from tests.endpoints.deploying import run_inline, settles
from tests.serving.onnx_files import FEATURES, classifier

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.model]

EXAMPLE = [1.0] * FEATURES
MODEL_PY = """
import numpy, onnxruntime

class Model:
    example = [0.0] * 64

    def load(self, path):
        self.session = onnxruntime.InferenceSession(f"{path}/weights/model.onnx")

    def predict(self, inputs):
        name = self.session.get_inputs()[0].name
        found = self.session.run(None, {name: numpy.asarray(inputs, dtype=numpy.float32)})[0]
        return [{"best": int(row.argmax())} for row in found]
"""


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    return prebuilt(engine, "onnx")


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch)


@pytest.fixture
def serve(engine: Engine, image: str, settings: Any) -> Iterator[Any]:
    """Deploys version 1 of this model of the registry into a Docker region."""
    settings.CPU_OVERCOMMIT = 4.0
    made: list[Endpoint] = []

    def deploy(model: str) -> Endpoint:
        make.instance_type()
        make.region(runtime="docker", config={"hosts": [{"name": "here", "url": engine.url}]})
        spec = replace(make.spec(model), source=SourceSpec(model=model, version=1), framework=Framework.ONNX)
        made.append(Endpoint.launch(make.project(), spec, by=make.user()))
        settles(made[-1], Status.ACTIVE)
        return made[-1]

    yield deploy
    for endpoint in made:
        endpoint.delete_endpoint(by=None)
        settles(endpoint, Status.DELETED)
        runtime = runtime_of(endpoint.region)
        assert isinstance(runtime, DockerRuntime)
        runtime.close()


def register(name: str, main: str, *files: str) -> None:
    """Version 1 of what lies in the store's folder of this name."""
    home = Path(settings.DATA_DIR) / "models" / name
    listed = []
    for file in files:
        content = (home / file).read_bytes()
        listed.append({"path": file, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    ModelVersion.objects.create(
        model=RegisteredModel.objects.create(name=name),
        number=1,
        path=str((home / main).relative_to(settings.DATA_DIR)),
        files=listed,
        size_bytes=sum(each["size"] for each in listed),
    )


def predict(endpoint: Endpoint, inputs: list[Any]) -> Any:
    address = endpoint.instances.live().get().address
    answer = httpx.post(f"{address}/predict", json={"inputs": inputs}, trust_env=False, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"]


def test_a_model_py_runs_with_its_own_packages(serve: Any) -> None:
    home = Path(settings.DATA_DIR) / "models" / "by-code"
    (home / "weights").mkdir(parents=True)
    classifier(home / "weights" / "model.onnx")
    (home / "model.py").write_text(MODEL_PY)
    (home / "requirements.txt").write_text("orjson\n")
    register("by-code", "model.py", "model.py", "requirements.txt", "weights/model.onnx")
    endpoint = serve("by-code")
    build = endpoint.latest_deployment.phases.get(kind="build")
    assert build.message == "The model's packages are built into an image on here."
    assert "orjson" in build.log
    assert set(predict(endpoint, [EXAMPLE])[0]) == {"best"}


def test_a_lone_onnx_file_needs_no_code(serve: Any) -> None:
    home = Path(settings.DATA_DIR) / "models" / "plain"
    home.mkdir(parents=True)
    classifier(home / "model.onnx")
    register("plain", "model.onnx", "model.onnx")
    assert len(predict(serve("plain"), [EXAMPLE])) == 1
