"""What is told of a user's own image before a node pulls it, and that not seeing it is held against nobody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from endpoints.runtimes.base import Command, Image, Rejected
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from tests.endpoints.runtimes.kubernetes.conftest import Region
from tests.oci import Registry, image

PASSWORD = "hunter2-of-bob"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(users={"bob": PASSWORD}, private=True) as running:
        yield running


def command(registry: Registry, name: str = "team/own:1", password: str = PASSWORD) -> Command:
    own = Image(registry.name(name), username="bob", password=password)
    return Command(engine="custom", model="", alias="demo", image=own)


def test_the_phase_tells_what_the_name_means_and_what_the_image_brings(
    registry: Registry, runtime: KubernetesRuntime
) -> None:
    digest = registry.push("team/own", "1", image("arm64", User="root"), image(User="root", ExposedPorts=None))
    lines: list[str] = []
    said = runtime.prepare(command(registry), lines.append)
    assert lines[0] == f"Good: image: {digest} is what the name means now, for linux/arm64, linux/amd64."
    assert "Linux for arm64 and amd64, 12 MiB to pull" in lines[1]
    assert "the image's is root, so it runs as 65532" in lines[-1]
    assert said.endswith(f"It means {digest[:19]}… now. Its requirements: 4 good, 2 to look at.")
    assert runtime.capacity().architectures == ("amd64",)


def test_one_for_other_processors_than_the_nodes_is_pointed_at(
    registry: Registry, runtime: KubernetesRuntime
) -> None:
    registry.push("team/own", "1", image("s390x"))
    lines: list[str] = []
    runtime.prepare(command(registry), lines.append)
    assert "made for s390x, and the host is amd64" in lines[1]


def test_one_that_was_seen_and_can_t_run_is_refused(registry: Registry, runtime: KubernetesRuntime) -> None:
    registry.push("team/own", "1", image("amd64", "windows"))
    with pytest.raises(Rejected, match="must be a Linux image"):
        runtime.prepare(command(registry), print)


def test_that_it_isn_t_seen_from_here_is_said_and_stops_nothing(registry: Registry, region: Region) -> None:
    runtime, closed = region(), region(private=False)
    silent = Command(engine="custom", model="", alias="x", image=Image("127.0.0.1:9/x:1"))
    for asked, told in (
        (command(registry), "has no image team/own"),
        (command(registry, password="wrong"), "doesn't accept the password of “bob”"),
        (silent, "can't be reached from here"),
    ):
        lines: list[str] = []
        assert "a node may have it already" in runtime.prepare(asked, lines.append)
        assert told in lines[0]
        assert PASSWORD not in lines[0]
    lines = []
    closed.prepare(command(registry), lines.append)
    assert "fetches from public ones only" in lines[0]
