"""What instances use, in the words of the cluster's metrics API."""

from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from tests.cluster.life import Life
from tests.cluster.server import Cluster
from tests.endpoints.runtimes.contract import the_one
from tests.endpoints.runtimes.kubernetes.conftest import workload


def test_a_pod_s_usage_is_that_of_what_serves_in_it(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1))
    name = the_one(runtime, "running").name
    assert runtime.usage()[name].cpu_millis is None  # nobody measures
    others = {"name": "mesh", "usage": {"cpu": "2", "memory": "1Gi"}}
    serving = {"name": "model", "usage": {"cpu": "812345n", "memory": "14628Ki"}}
    cluster.metrics = [{"metadata": {"name": name}, "containers": [others, serving]}]
    found = runtime.usage()[name]
    assert (found.cpu_millis, found.memory_bytes) == (1, 14628 << 10)
