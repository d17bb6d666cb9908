"""Images: brought with words that help, kept while needed, and never lent to somebody who may not have them."""

import time
from collections.abc import Iterator

import pytest

from endpoints.runtimes.base import Command, Image, Rejected, Unavailable, Unprepared
from endpoints.runtimes.docker.runtime import DockerRuntime
from endpoints.runtimes.docker.tidying import KEPT_SECONDS
from tests.docker.conftest import IMAGE, workload
from tests.docker.engine import Engine
from tests.docker.registry import Registry
from tests.endpoints.runtimes.contract import ended, the_one

PASSWORD = "correct horse battery"


def command(image: Image, engine: str = "custom") -> Command:
    return Command(engine=engine, model="", alias="demo", image=image)


@pytest.fixture
def registry(engine: Engine) -> Iterator[Registry]:
    with Registry(password=PASSWORD) as found:
        yield found
        for image in engine.client.images(found.image):
            engine.client.remove_image(image["Id"], force=True)


@pytest.fixture
def mine(registry: Registry) -> Command:
    return command(Image(registry.image, username=registry.user, password=PASSWORD))


def test_a_pull_reports_and_says_what_is_there_now(docker_runtime: DockerRuntime, mine: Command) -> None:
    lines: list[str] = []
    assert not docker_runtime.prepared(mine)
    said = docker_runtime.prepare(mine, lines.append)
    assert "pulled on test. Its requirements: " in said
    assert lines[0].startswith("Pulling 127.0.0.1:")
    assert docker_runtime.prepared(mine)
    assert PASSWORD not in " ".join(lines)


@pytest.mark.parametrize(
    ("password", "tag", "words"),
    [
        ("", "1", "without a user name"),
        ("wrong", "1", "with this user name"),
        (PASSWORD, "2", "There is no image"),
    ],
)
def test_a_registry_that_says_no_is_final_and_in_words(
    docker_runtime: DockerRuntime, registry: Registry, password: str, tag: str, words: str
) -> None:
    name = registry.image.removesuffix("1") + tag
    image = Image(name, username=registry.user if password else "", password=password)
    with pytest.raises(Rejected, match=words) as refused:
        docker_runtime.prepare(command(image), print)
    assert not password or password not in str(refused.value)


def test_an_image_that_one_project_pulled_is_not_lent_to_another(
    docker_runtime: DockerRuntime, registry: Registry, mine: Command
) -> None:
    docker_runtime.prepare(mine, print)
    with pytest.raises(Rejected, match="without a user name"):
        docker_runtime.prepare(command(Image(registry.image)), print)


def test_a_registry_that_is_away_is_an_outage(docker_runtime: DockerRuntime) -> None:
    with pytest.raises(Unavailable, match="can't be asked"):
        docker_runtime.prepare(command(Image("127.0.0.1:9/team/own:1")), print)


def test_an_image_starts_while_its_registry_is_away_for_whom_it_was_pulled_before(
    docker_runtime: DockerRuntime, registry: Registry, mine: Command
) -> None:
    docker_runtime.prepare(mine, print)
    registry.server.shutdown()
    registry.server.server_close()
    assert "can't be asked now" in docker_runtime.prepare(mine, print)
    for other in (Image(registry.image), Image(registry.image, username=registry.user, password="another")):
        with pytest.raises(Unavailable, match="can't be asked"):
            docker_runtime.prepare(command(other), print)
    kept = docker_runtime.vouched.file.read_text()
    assert PASSWORD not in kept


def test_a_users_own_image_is_judged_by_what_it_must_bring(docker_runtime: DockerRuntime, mine: Command) -> None:
    lines: list[str] = []
    said = docker_runtime.prepare(mine, lines.append)
    assert "Good: start: the image's own command." in lines
    assert "Good: user: it runs as 1000, without further rights. It writes only to /tmp." in lines
    assert "Look at this: port: the image exposes none. It must listen on 8000, on all its addresses." in lines
    assert said.endswith("Its requirements: 5 good, 1 to look at.")


def test_a_pre_built_image_that_is_not_there_says_where_it_comes_from(docker_runtime: DockerRuntime) -> None:
    with pytest.raises((Rejected, Unavailable), match="from deploy/images"):
        docker_runtime.prepare(command(Image("tir-serving-moon:1"), engine="python"), print)


def test_no_name_of_an_image_is_refused(docker_runtime: DockerRuntime) -> None:
    with pytest.raises(Rejected, match="is no name of an image"):
        docker_runtime.prepare(command(Image("UPPER/Case:1")), print)


def test_an_image_made_here_needs_no_registry(docker_runtime: DockerRuntime) -> None:
    assert docker_runtime.prepare(command(Image(IMAGE)), print).startswith(f"{IMAGE} is on test.")


def test_cancelling_ends_a_pull(docker_runtime: DockerRuntime, mine: Command) -> None:
    class Cancelled(Exception):
        pass

    def cancel(line: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        docker_runtime.prepare(mine, cancel)
    assert not docker_runtime.prepared(mine)


def test_an_image_that_is_gone_is_said_before_anything_starts(docker_runtime: DockerRuntime) -> None:
    with pytest.raises(Unprepared, match="no-such:1"):
        docker_runtime.apply(workload(1, image="tir-test/no-such:1"))
    assert docker_runtime.observe() == {}


def test_only_what_we_brought_and_nobody_needs_is_taken_away(
    docker_runtime: DockerRuntime, mine: Command, engine: Engine
) -> None:
    assert mine.image
    docker_runtime.prepare(mine, print)
    docker_runtime.prepare(command(Image(IMAGE)), print)
    later = time.time() + KEPT_SECONDS + 60
    assert docker_runtime.tidy([], at=time.time()) == []
    assert docker_runtime.tidy([mine.image.name], at=later) == []
    assert docker_runtime.tidy([], at=later + KEPT_SECONDS + 60) == [mine.image.name]
    assert not docker_runtime.prepared(mine)
    assert engine.client.images(IMAGE)


def test_our_network_goes_when_no_instance_is_left(docker_runtime: DockerRuntime, engine: Engine) -> None:
    label = {"label": f"tir.installation={docker_runtime.installation}"}
    docker_runtime.apply(workload(1))
    name = the_one(docker_runtime, "running").name
    docker_runtime.tidy([], at=time.time())
    assert engine.client.networks(filters=label)
    docker_runtime.apply(workload(0))
    ended(docker_runtime, name)
    docker_runtime.forget(name)
    docker_runtime.tidy([], at=time.time())
    assert not engine.client.networks(filters=label)
