"""A cluster of one node, over HTTP, and a runtime that steers its namespace."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoints.runtimes.base import Command, Image, Workload
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from endpoints.runtimes.kubernetes.settings import read
from tests.cluster.life import NAMESPACE, Life, node
from tests.cluster.server import Cluster

OWNER = "endpoint-7"
STUB = Command(engine="custom", model="", alias="demo", image=Image("registry.example/stub:1"))
Region = Callable[..., KubernetesRuntime]


def workload(replicas: int = 1, *, behave: str = "serve", **changes: Any) -> Workload:
    wanted = Workload(OWNER, 1, replicas, STUB, cpu_millis=500, memory_bytes=1 << 30, env={"BEHAVE": behave})
    return replace(wanted, **changes)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.store.create(("nodes", "", "n1"), node("n1"))
    cluster.store.create(("namespaces", "", NAMESPACE), {"metadata": {"name": NAMESPACE}})
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def life(cluster: Cluster) -> Iterator[Life]:
    life = Life(cluster)
    life.start()
    yield life
    life.stop()


@pytest.fixture
def region(cluster: Cluster, tmp_path: Path) -> Region:
    """Makes runtimes of the same namespace, with these settings more."""

    def make(**config: Any) -> KubernetesRuntime:
        access = {"kubeconfig": cluster.kubeconfig(tmp_path), "namespace": NAMESPACE}
        return KubernetesRuntime(read({**access, **config}))

    return make


@pytest.fixture
def runtime(region: Region) -> KubernetesRuntime:
    return region()
