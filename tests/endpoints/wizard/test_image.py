"""A custom container's image, looked at in its registry before anything is deployed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils.html import escape

from endpoints.models import Region, Secret
from tests import make
from tests.endpoints.wizard.way import Way
from tests.oci import Registry, image

pytestmark = pytest.mark.django_db
PASSWORD = "hunter2-of-bob"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(users={"bob": PASSWORD}, private=True) as running:
        yield running


@pytest.fixture
def containers(way: Way) -> Way:
    """At the step, in a region of Docker on amd64, with bob's password stored."""
    region = Region.objects.get()
    Region.objects.update(runtime="docker", capacity=region.capacity | {"architectures": ["amd64"]})
    Secret.store(way.draft.project, "registry", PASSWORD, by=make.user("alice"))
    way.to("method")
    return way


def asked(registry: Registry, **more: Any) -> dict[str, Any]:
    own = {"image": registry.name("team/own:1"), "registry_username": "bob", "registry_secret": "registry"}
    return {"method": "custom", **own, **more}


def check(way: Way, **values: Any) -> str:
    answer = way.post("method", go="check", **values)
    assert answer.status_code == 200, answer.content.decode()
    return str(answer.content.decode())


def test_an_image_is_told_of_and_kept_until_it_or_its_user_changes(containers: Way, registry: Registry) -> None:
    digest = registry.push("team/own", "1", image("arm64"), image("amd64", User="", ExposedPorts={"9000/tcp": {}}))
    page = check(containers, **asked(registry))
    assert "Seen just now" in page
    assert digest in page
    assert "linux/arm64, linux/amd64" in page
    assert "12 MiB in 2 layers" in page
    assert escape("The image's is root, so it runs as 65532") in page
    assert "The image exposes 9000, and 8000 is called." in page
    requests = len(registry.asked)
    containers.passes("method", **asked(registry, port="9000"))
    page = containers.see("method")
    assert "9000 is exposed." in page  # judged anew with what was seen
    assert len(registry.asked) == requests
    containers.passes("method", **asked(registry, image=registry.name("team/own:2")))
    assert digest not in containers.see("method")
    containers.passes("method", **asked(registry))
    assert digest in containers.see("method")
    containers.passes("method", **asked(registry, registry_username="", registry_secret=""))
    assert digest not in containers.see("method")


def test_its_digest_can_be_taken_in_the_tag_s_place_without_asking_again(
    containers: Way, registry: Registry
) -> None:
    digest = registry.push("team/own", "1", image())
    pinned = f"{registry.name('team/own:1')}@{digest}"
    page = check(containers, **asked(registry))
    assert f'name="use_image" value="{pinned}"' in page
    requests = len(registry.asked)
    page = containers.post("method", go="use", **asked(registry), use_image=pinned).content.decode()
    assert f'value="{pinned}"' in page
    assert 'name="use_image"' not in page
    containers.passes("method", go="summary", **asked(registry, image=pinned))
    summary = containers.see("summary")
    assert f"Its registry has it as {digest[:19]}…. Its requirements are met." in summary
    assert len(registry.asked) == requests


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"image": ""}, "image", "Give the image's name"),
        ({"registry_username": "", "registry_secret": ""}, "image", "it is private, or there is no such image"),
        ({"registry_username": "eve"}, "registry_secret", "doesn't accept the password of “eve”"),
        ({"image": "127.0.0.1:9/team/own:1"}, "image", "can't be reached from here"),
        ({"image": "169.254.169.254/team/own:1"}, "image", "Nothing is fetched from there"),
    ],
)
def test_what_keeps_it_from_being_seen_stands_at_its_field(
    containers: Way, registry: Registry, changed: dict[str, str], field: str, said: str
) -> None:
    registry.push("team/own", "1", image())
    check(containers, **asked(registry))
    page = containers.refused("method", go="check", **asked(registry, **changed))
    assert escape(said) in page.partition(f'id="id_{field}_error"')[2][:900]
    assert "Seen " not in page
    draft = containers.fresh()
    assert PASSWORD not in page + json.dumps([draft.answers, draft.image])


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("docker", "was built or loaded on the region's hosts is not seen"),
        ("kubernetes", "a node that has the image"),
    ],
)
def test_one_that_the_registry_lacks_is_not_called_missing_where_it_would_start(
    containers: Way, registry: Registry, runtime: str, said: str
) -> None:
    Region.objects.update(runtime=runtime)
    page = containers.refused("method", go="check", **asked(registry))
    assert escape("Only the registry was asked") in page
    assert escape(said) in page
    assert "This is what the check found." in page
    containers.passes("method", **asked(registry))  # the check keeps nobody from going on


def test_what_could_never_start_is_refused_with_its_reason(containers: Way, registry: Registry) -> None:
    registry.push("team/own", "1", image("amd64", "windows"))
    page = containers.refused("method", go="check", **asked(registry))
    assert "must be a Linux image" in page
    registry.push_artifact("team/own", "1", "application/vnd.cncf.helm.config.v1+json")
    page = containers.refused("method", go="check", **asked(registry))
    assert "is no image but another artifact" in page
    assert "Only the registry was asked" not in page


def test_on_kubernetes_it_runs_as_nobody_and_on_docker_as_the_region_allows(
    containers: Way, registry: Registry
) -> None:
    registry.push("team/own", "1", image(User="app"))
    check(containers, **asked(registry))
    assert "It runs as app, without further rights" in containers.see("method")
    Region.objects.update(runtime="kubernetes")
    assert escape("The image's is app, so it runs as 65532") in containers.see("method")
    registry.push("team/own", "1", image(User="root"))
    Region.objects.update(runtime="docker", config={"allow_root": True})
    assert "It runs as root, without further rights" in check(containers, **asked(registry))


def test_in_place_the_step_alone_is_answered(containers: Way, registry: Registry) -> None:
    registry.push("team/own", "1", image())
    headers = {"HX-Request": "true", "HX-Target": "step-fields"}
    values = {"step": "method", "go": "check", **asked(registry)}
    page = containers.client.post(containers.url("method"), values, headers=headers).content.decode()
    assert "Seen just now" in page
    assert "<html" not in page
    assert 'id="panel"' in page
