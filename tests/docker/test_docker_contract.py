"""The contract, asked of a real Docker engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from endpoints.runtimes.base import Runtime, Workload
from endpoints.runtimes.docker.runtime import DockerRuntime
from tests.docker.conftest import New, workload
from tests.docker.engine import Engine
from tests.endpoints.runtimes.contract import Contract, Place, settled


class Containers:
    """One engine."""

    keeps_the_ended = True

    def __init__(self, new: New, engine: Engine) -> None:
        self.new, self.engine = new, engine
        self.runtime: DockerRuntime = new()

    def again(self) -> Runtime:
        return self.new()

    def elsewhere(self) -> Runtime:
        return self.new("-elsewhere")

    def workload(self, replicas: int = 1, *, behave: str = "serve", **changes: Any) -> Workload:
        return workload(replicas, behave=behave, **changes)

    def kill(self, name: str) -> None:
        self.engine.client.kill(name, "SIGKILL")

    def vanish(self, name: str) -> None:
        self.engine.client.remove_container(name, force=True)

    def let_go(self) -> None:
        """Nothing waits here: a container has its address as soon as it runs."""

    @contextmanager
    def outage(self) -> Iterator[None]:
        hosts = self.runtime.hosts
        self.runtime.fleet.hosts = tuple(replace(host, url="unix:///nonexistent/sock") for host in hosts)
        yield
        self.runtime.fleet.hosts = hosts


class TestDocker(Contract):
    @pytest.fixture
    def place(self, new_docker: New, engine: Engine) -> Place:
        return Containers(new_docker, engine)

    def test_a_slow_start_is_starting_until_it_has_an_address(self, place: Place, runtime: Runtime) -> None:
        """A container has its address as soon as it runs; whether a model answers there is the probe's to say."""
        runtime.apply(place.workload(1, behave="slow"))
        assert next(iter(settled(runtime, "running", 1).values())).address
