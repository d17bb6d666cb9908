"""Pre-built or custom: what a region can run, what an image must say, and what one choice does to others."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils.html import escape

from accounts.models import Project
from endpoints.models import Endpoint, Region, Secret
from endpoints.validation import spec_from
from tests.endpoints.wizard.test_limits import errors_of, wish
from tests.endpoints.wizard.test_machine import off
from tests.endpoints.wizard.way import Way

pytestmark = pytest.mark.django_db
IMAGE = "registry.example.com:5000/team/model:1.4@sha256:" + "0a" * 32
CUSTOM: dict[str, Any] = {"method": "custom", "container": {"image": IMAGE}, "source": {"kind": "none"}}


@pytest.fixture
def containers(project: Project) -> Region:
    """The region runs containers."""
    Region.objects.update(runtime="docker")
    return Region.objects.get()


def custom(**container: Any) -> dict[str, object]:
    return wish(**CUSTOM | {"container": {"image": IMAGE} | container})


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow", "onnx", "python", "llama.cpp"])
def test_processes_run_every_framework_but_vllm(way: Way, framework: str) -> None:
    way.to("method")
    page = way.see("method")
    assert off(page, "vllm")
    assert off(page, "custom")
    assert "Choose a region with Docker or Kubernetes." in page
    way.passes("method", framework=framework)


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        ({"framework": "vllm"}, "framework", "needs a container with a GPU"),
        ({"method": "custom", "container": {"image": IMAGE}}, "method", "runs processes, not containers"),
        ({"framework": "custom"}, "framework", "takes the method “custom”"),
        ({"framework": "pytorch", "framework_version": "3.x"}, "framework_version", "2.x, 1.x"),
        ({"framework": "onnx", "framework_version": "2.x"}, "framework_version", "nothing to choose"),
        ({"source": {"kind": "none"}}, "source.kind", "Only a custom container"),
        ({"container": {"image": IMAGE}}, "container.image", "Only a custom container has this"),
        ({"llm": {"accuracy_threshold": 0.9}}, "llm.accuracy_threshold", "PyTorch or ONNX"),
        ({"source": {"kind": "registry", "model": "tiny", "version": 1, "bucket": "b"}}, "source.bucket", "kind"),
        ({"framework": "onnx"}, "source.version", "ONNX needs an .onnx file"),
    ],
)
def test_rest_refuses_with_the_same_reasons(
    project: Project, asked: dict[str, object], field: str, said: str
) -> None:
    assert said in " ".join(errors_of(project, wish(**asked))[field])


def test_a_region_of_containers_runs_an_image_of_ones_own(containers: Region, way: Way) -> None:
    way.to("method")
    assert not off(way.see("method"), "custom")
    way.passes(
        "method", method="custom", image=IMAGE, port="9000", health_path="/ready", command="serve --fast 'a b'"
    )
    way.passes("source")
    way.passes("machine")
    assert "Your image decides" in way.see("llm")
    for step in ("llm", "scaling", "environment"):
        way.passes(step)
    page = way.see("summary")
    assert escape(IMAGE) in page
    assert "must answer GET /ready on port 9000" in page
    way.passes("summary", go="deploy", cost="yes")
    spec = Endpoint.objects.get().revisions.get().wish
    assert (spec.engine, spec.source.kind, spec.container.port) == ("custom", "none", 9000)
    assert spec.container.command == "serve --fast 'a b'"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"image": ""}, "image"),
        ({"image": "team/Model:1"}, "image"),
        ({"image": "a b"}, "image"),
        ({"image": "x@sha256:12"}, "image"),
        ({"image": "https://registry.example.com/x"}, "image"),
        ({"port": 0}, "port"),
        ({"port": 70000}, "port"),
        ({"health_path": "ready"}, "health_path"),
        ({"health_path": "/a b"}, "health_path"),
        ({"command": "say 'hello"}, "command"),
        ({"startup_seconds": 5}, "startup_seconds"),
        ({"registry_username": "bob"}, "registry_secret"),
        ({"registry_secret": "gone"}, "registry_secret"),
    ],
)
def test_what_is_wrong_with_a_container_stands_at_its_field(
    containers: Region, project: Project, given: dict[str, object], field: str
) -> None:
    assert f"container.{field}" in errors_of(project, custom(**given))


@pytest.mark.parametrize("image", ["ubuntu", "ubuntu:24.04", "a.b/c/d__e-f:v1.0_x", "localhost:5000/m", IMAGE])
def test_every_name_that_a_registry_takes_is_taken(containers: Region, project: Project, image: str) -> None:
    assert spec_from(custom(image=image), project).container.image == image


@pytest.mark.parametrize(("image", "moves"), [("x:latest", True), ("x", True), ("x:1", False), (IMAGE, False)])
def test_an_image_whose_name_may_move_is_warned_of(containers: Region, way: Way, image: str, moves: bool) -> None:
    way.to("method")
    way.passes("method", method="custom", image=image)
    assert ("“latest” moves" in way.see("method")) is moves


def test_a_registry_password_is_stored_and_chosen_without_leaving(containers: Region, way: Way) -> None:
    way.to("method")
    way.passes("method", go="secret", method="custom", image=IMAGE, registry_username="bob")
    way.client.post(way.act("draft_secret"), {"step": "method", "name": "registry", "value": "hunter2\r\n"})
    page = way.see("method")
    assert '<option value="registry" selected>' in page
    assert f'value="{IMAGE}"' in page
    assert Secret.objects.get().reveal() == "hunter2"
    way.passes("method")


def test_a_key_of_many_lines_is_stored_as_ssh_reads_it(way: Way) -> None:
    way.to("source")
    value = "-----BEGIN OPENSSH PRIVATE KEY-----\r\nabc\r\n-----END OPENSSH PRIVATE KEY-----\r\n"
    way.client.post(way.act("draft_secret"), {"step": "source", "name": "deploy-key", "value": value})
    assert Secret.objects.get().reveal() == value.replace("\r\n", "\n")


def test_what_was_typed_for_one_method_is_there_after_trying_the_other(containers: Region, way: Way) -> None:
    way.to("summary")
    way.passes("llm", top_k="7")
    way.passes("method", method="custom", image=IMAGE, port="9000")
    way.passes("method", method="prebuilt")
    assert 'value="7"' in way.see("llm")
    assert not way.fresh().dropped
    way.passes("method", method="custom")
    assert f'value="{IMAGE}"' in way.see("method")
    assert 'value="9000"' in way.see("method")


def test_another_engine_drops_the_model_it_cant_load_and_undo_brings_it_back(way: Way) -> None:
    way.to("source")
    way.passes("source", pick="tiny@1")
    way.passes("method", engine="pytorch@1.x")
    page = way.see("source")
    assert "was dropped: PyTorch needs model.py" in page
    way.client.post(way.act("undo"))
    assert way.fresh().answers["source"]["version"] == "1"
    assert way.fresh().answers["method"]["framework"] == "llama.cpp"


def test_vllm_takes_a_machine_with_a_gpu(containers: Region, way: Way) -> None:
    Region.objects.update(capacity=containers.capacity | {"gpus": 2})
    way.to("method")
    way.passes("method", engine="vllm")
    draft = way.fresh()
    draft.reached = 7
    draft.save()
    page = way.see("machine")
    assert off(page, "c6i.large")
    assert "vLLM needs a GPU, and this machine has none." in page
    assert not off(page, "g4dn.xlarge")


def test_a_region_without_a_gpu_runs_no_vllm(containers: Region, way: Way) -> None:
    way.to("method")
    assert "vLLM needs a GPU, and the region" in way.refused("method", engine="vllm")


def test_a_spec_as_it_is_stored_can_be_sent_again(containers: Region, project: Project) -> None:
    made = spec_from(custom(port=9000), project)
    assert spec_from(made.to_dict(), project) == made
