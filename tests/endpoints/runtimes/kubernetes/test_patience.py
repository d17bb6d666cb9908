"""How long an apply looks for what the cluster's controllers make."""

import pytest

from endpoints.runtimes.kubernetes import runtime as steering
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from tests.cluster.life import Life
from tests.cluster.server import Asked, Cluster
from tests.endpoints.runtimes.kubernetes.conftest import OWNER, workload


def test_a_pause_of_this_machine_is_not_taken_for_the_cluster_s(
    runtime: KubernetesRuntime, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "SEEN_WITHIN", 0.0)  # the time was over before the second look
    life, verbs = Life(cluster), list[str]()

    def late(asked: Asked) -> None:
        """The controllers come to it at the fourth look."""
        if asked.verb == "patch":
            verbs.clear()
        verbs.append(asked.verb)
        if verbs.count("list") > 3:
            life.tick()

    with cluster.fault(late):
        runtime.apply(workload(2))
    assert len(runtime.observe(OWNER)) == 2
