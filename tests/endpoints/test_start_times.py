"""How long a start may take: what its image and its model's size need, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from endpoints import facts
from endpoints.models import Endpoint, Region, Revision
from endpoints.models.deployment import PhaseKind
from endpoints.planner import RevisionFacts
from endpoints.planner.limits import SLOWEST_LINK, loading_deadline
from endpoints.regions import replace_runtime
from endpoints.spec import ContainerSpec, SourceSpec
from endpoints.workloads import command_of
from tests import make
from tests.runtimes import InstantRuntime

pytestmark = pytest.mark.django_db
PULL = PhaseKind.BUILD.deadline


@pytest.fixture(autouse=True)
def place() -> Iterator[None]:
    make.region()
    make.instance_type()
    replace_runtime("local", InstantRuntime())
    yield
    replace_runtime("local", None)


def launched(runtime: str, **changes: object) -> Endpoint:
    Region.objects.update(runtime=runtime)
    return Endpoint.launch(make.project(), replace(make.spec(), **changes), by=make.user())  # type: ignore[arg-type]


def allowed(endpoint: Endpoint) -> timedelta:
    (loaded,) = facts.load([endpoint], {}, timezone.now())
    deployment = loaded.facts.deployment
    revision: RevisionFacts = deployment.revision  # type: ignore[union-attr]
    return loading_deadline(0, revision.startup_seconds)


def test_a_node_may_pull_an_image_before_its_own_time_begins() -> None:
    own = {
        "method": "custom",
        "framework": "custom",
        "source": SourceSpec(kind="none"),
        "container": ContainerSpec(image="a/b:1", startup_seconds=30),
    }
    assert allowed(launched("docker", **own)) == timedelta(seconds=30), "its image was brought before"
    assert allowed(launched("kubernetes", **own)) == timedelta(seconds=30) + PULL
    assert allowed(launched("kubernetes")) == allowed(launched("process")) + PULL


def test_a_large_model_gets_the_time_that_its_size_needs() -> None:
    endpoint = launched("kubernetes")
    Revision.objects.update(resolved={"size": 600 * SLOWEST_LINK, "commit": "1", "file": "", "files": []})
    command = command_of(endpoint, endpoint.revisions.get(), fetches=False)
    assert command.startup_seconds == 600 + 600


@pytest.mark.parametrize(
    ("framework", "files", "allowed"),
    [
        ("pytorch", ["config.json", "pytorch_model.bin"], True),
        ("vllm", ["config.json", "pytorch_model-00001-of-00002.bin"], True),
        ("pytorch", ["config.json", "pytorch_model.bin", "model.safetensors"], None),
        ("python", ["model.py", "weights/all.pt"], None),
        ("llama.cpp", ["tiny.gguf"], None),
    ],
)
def test_pickled_weights_are_loaded_where_there_are_no_others(
    framework: str, files: list[str], allowed: bool | None
) -> None:
    """They were looked through when they were fetched."""
    endpoint = launched("process", framework=framework)
    Revision.objects.update(resolved={"size": 1, "commit": "1", "file": "", "files": files})
    command = command_of(endpoint, endpoint.revisions.get(), fetches=False)
    assert command.options.get("allow_pickle") is allowed
