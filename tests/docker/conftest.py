"""An engine for all Docker tests of a session, with a small image that behaves as it is told."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoints.runtimes.base import Command, Image, Workload
from endpoints.runtimes.docker import hosts
from endpoints.runtimes.docker.hosts import Host
from endpoints.runtimes.docker.runtime import DockerRuntime
from tests.docker.engine import Engine, wanted
from tests.endpoints.runtimes.contract import HELLO, LAST_WORDS, OWNER

IMAGE = "tir-test/engine:1"
# All on one stream: an engine reads two pipes, and what comes on both at once in either order.
BEHAVIOUR = f"""#!/bin/sh
exec 1>&2
trap 'echo goodbye; exit 0' TERM
echo {HELLO}
case "$BEHAVE" in
  crash) echo {LAST_WORDS}; exit 1 ;;
  hungry) tail /dev/zero; exit $? ;;
  chatty) for n in $(seq 1 "$LINES"); do echo "line $n"; done ;;
  telltale) for n in HF_TOKEN WORD; do eval echo "$n is \\$$n"; done; echo end of tale ;;
  deaf) trap '' TERM ;;
  look) sh -c "$LOOK"; echo end of look ;;
esac
httpd -p "$PORT" -h /tmp
while :; do sleep 3600 & wait $!; done
"""
# The docker client leaves the socket of a refused connection to the collector, which runs before each test ends.
LEFT = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
_numbers = itertools.count(1)
New = Callable[..., DockerRuntime]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(LEFT)


@pytest.fixture(autouse=True)
def left_to_the_collector() -> Iterator[None]:
    """Set up first and torn down last: what a test's clients left is collected while it is excused."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is asked for longer: a busy machine is no outage."""
    monkeypatch.setattr(hosts, "QUICK", 60)


@pytest.fixture(scope="package")  # gone before the tests of others come
def engine() -> Iterator[Engine]:
    wanted()
    engine = Engine()
    try:
        engine.start()
        engine.add_image(IMAGE, {"bin/engine": BEHAVIOUR}, changes=['CMD ["/bin/engine"]'])
        yield engine
    finally:
        engine.end()
        gc.collect()


@pytest.fixture
def host(engine: Engine) -> Host:
    return Host("test", engine.url)


@pytest.fixture
def new_docker(engine: Engine, host: Host, tmp_path: Path) -> Iterator[New]:
    """Makes runtimes of one region unless told otherwise."""
    installation = f"test{next(_numbers)}"
    made: list[DockerRuntime] = []

    def make(suffix: str = "", **options: Any) -> DockerRuntime:
        options = {"hosts": [host], "data_dir": tmp_path, "installation": installation + suffix, **options}
        made.append(DockerRuntime(**options))
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()
    gc.collect()
    for one in engine.client.containers(all=True, filters={"label": "tir.installation"}):
        engine.client.remove_container(one["Id"], force=True, v=True)
    for network in engine.client.networks(filters={"label": "tir.installation"}):
        engine.client.remove_network(network["Id"])


@pytest.fixture
def docker_runtime(new_docker: New) -> DockerRuntime:
    return new_docker()


def workload(replicas: int = 1, *, behave: str = "serve", image: str = IMAGE, **changes: Any) -> Workload:
    command = Command(engine="custom", model="", alias="demo", image=Image(image))
    wanted = {"owner": OWNER, "revision": 1, "command": command, "cpu_millis": 100, "memory_bytes": 64 << 20}
    env = {"BEHAVE": behave, **changes.pop("env", {})}
    return Workload(**{**wanted, "env": env, **changes, "replicas": replicas})
