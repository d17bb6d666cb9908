"""A namespace of a real cluster, and what can be done there behind the runtime's back by its API alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

from endpoints.runtimes.base import Command, Image, Runtime, Workload
from endpoints.runtimes.kubernetes import labels, lives
from endpoints.runtimes.kubernetes.podspec import MAIN
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from endpoints.runtimes.kubernetes.settings import read
from tests.endpoints.runtimes.contract import OWNER
from tests.real_cluster.door import Door
from tests.wait import until

INSTALLATION = "tir-test"
GO = "tir-test/go"  # a label of nodes, without which the slow ones find no place
ENGINE = Path(__file__).with_name("engine.py").read_text("utf-8")
# Until it is gone, and this with it: before it listens for a signal it doesn't hear of one.
KILL = "import os, signal, time\nwhile not time.sleep(0.1): os.kill(1, signal.SIGUSR1)"


class RealCluster:
    """Only what carries the label of this installation is touched, so a namespace may hold more."""

    keeps_the_ended = False

    def __init__(self, kubeconfig: str, door: Door, namespace: str, image: str) -> None:
        self.door, self.namespace = door, namespace
        slow = {"slow": {"node_selector": {GO: "yes"}}}
        self.config = {"kubeconfig": kubeconfig, "namespace": namespace, "instance_types": slow}
        self.image = Image(image, command=("python3", "-c", ENGINE), health_path="/")
        self.command = Command(engine="custom", model="", alias="demo", image=self.image)
        connection = config.new_client_from_config(kubeconfig)  # type: ignore[no-untyped-call]
        self.core, self.apps = client.CoreV1Api(connection), client.AppsV1Api(connection)
        self.runtime = self.again()

    def again(self) -> Runtime:
        return KubernetesRuntime(read({**self.config, "installation": INSTALLATION}))

    def elsewhere(self) -> Runtime:
        return KubernetesRuntime(read({**self.config, "installation": f"{INSTALLATION}-theirs"}))

    def workload(self, replicas: int = 1, *, behave: str = "serve", **changes: Any) -> Workload:
        wanted = Workload(
            owner=OWNER,
            revision=1,
            replicas=replicas,
            command=self.command,
            cpu_millis=100,
            memory_bytes=128 << 20,
            env={"BEHAVE": behave},
            machine="slow" if behave == "slow" else "",
        )
        return replace(wanted, **changes)

    def kill(self, name: str) -> None:
        going = stream(
            self.core.connect_get_namespaced_pod_exec,
            lives.split(name)[0],
            self.namespace,
            container=MAIN,
            command=["python3", "-c", KILL],
            stdout=True,
            stderr=True,
            _preload_content=False,
        )
        going.run_forever(timeout=30)
        going.sock.shutdown()  # its close leaves a connection that the server has ended

    def vanish(self, name: str) -> None:
        self.core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=0)

    def let_go(self) -> None:
        self._label_nodes("yes")

    @contextmanager
    def outage(self) -> Iterator[None]:
        with self.door.shut():
            yield

    def may_label_nodes(self) -> None:
        """Skips a test that must."""
        try:
            self._label_nodes(None)
        except ApiException as refused:
            if refused.status != 403:
                raise
            pytest.skip("this account may not label nodes, by which slow instances are kept waiting")

    def clear(self) -> None:
        """Nothing of ours is left."""
        here, ours = self.namespace, labels.selector(INSTALLATION)
        self.apps.delete_collection_namespaced_deployment(
            here, label_selector=ours, propagation_policy="Background"
        )

        def gone() -> bool:
            self.core.delete_collection_namespaced_pod(here, label_selector=ours, grace_period_seconds=0)
            return not self.core.list_namespaced_pod(here, label_selector=ours).items

        until(gone, seconds=120, every=0.5, what="the end of all pods")

    def _label_nodes(self, value: str | None) -> None:
        for node in self.core.list_node().items:
            if node.metadata and node.metadata.name:
                self.core.patch_node(node.metadata.name, {"metadata": {"labels": {GO: value}}})
