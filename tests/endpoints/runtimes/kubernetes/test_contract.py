"""The contract of all runtimes, asked of a cluster over HTTP, with controllers and a kubelet of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoints.runtimes.base import Command, Image, Runtime, Workload
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from endpoints.runtimes.kubernetes.settings import read
from tests.cluster.life import NAMESPACE, Life
from tests.cluster.server import Cluster
from tests.cluster.store import Refusal
from tests.endpoints.runtimes.contract import Contract, Place

COMMAND = Command(engine="custom", model="", alias="demo", image=Image("registry.example/stub:1"))


class InCluster:
    """A namespace of a cluster. The kubelet leaves ended containers alone, except for those that were killed."""

    keeps_the_ended = False

    def __init__(self, cluster: Cluster, life: Life, folder: Path) -> None:
        self.cluster, self.life = cluster, life
        life.restarts = False
        self.config = {"kubeconfig": cluster.kubeconfig(folder), "namespace": NAMESPACE}
        self.runtime = self.again()

    def again(self) -> Runtime:
        return KubernetesRuntime(read(self.config))

    def elsewhere(self) -> Runtime:
        return KubernetesRuntime(read({**self.config, "installation": "theirs"}))

    def workload(self, replicas: int = 1, *, behave: str = "serve", **changes: Any) -> Workload:
        wanted = Workload(
            owner="endpoint-7",
            revision=1,
            replicas=replicas,
            command=COMMAND,
            cpu_millis=500,
            memory_bytes=256 << 20,
            env={"BEHAVE": behave},
        )
        return replace(wanted, **changes)

    def kill(self, name: str) -> None:
        self.life.restarts = True
        self.life.kill(name)

    def vanish(self, name: str) -> None:
        self.life.vanish(name)

    def let_go(self) -> None:
        self.life.slow_go = True

    @contextmanager
    def outage(self) -> Iterator[None]:
        with self.cluster.fault(lambda _: Refusal(503, "ServiceUnavailable", "the apiserver is shutting down")):
            yield


class TestKubernetes(Contract):
    @pytest.fixture
    def place(self, cluster: Cluster, life: Life, tmp_path: Path) -> Place:
        return InCluster(cluster, life, tmp_path)
