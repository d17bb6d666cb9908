"""A region's namespace that is missing, going or shut: said when the region is asked, with what to do."""

import pytest

from endpoints.runtimes.base import Unavailable
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from tests.cluster.life import NAMESPACE
from tests.cluster.server import Cluster, Rule
from tests.endpoints.runtimes.kubernetes.test_roles import granted

KEY = ("namespaces", "", NAMESPACE)
READ = Rule("get", "", "namespaces", namespaced=True)


def test_one_that_is_not_there_is_no_idle_one(runtime: KubernetesRuntime, cluster: Cluster) -> None:
    cluster.store.remove(KEY)
    assert runtime.observe() == {}  # as the server has it for who may see all of the cluster
    with pytest.raises(Unavailable, match=r"has no namespace models: make it.*deploy/kubernetes/region"):
        runtime.capacity()


def test_one_that_is_being_deleted_says_what_it_waits_for(runtime: KubernetesRuntime, cluster: Cluster) -> None:
    held = "Some resources are remaining: pods. has 2 resource instances"
    leaving = {"type": "NamespaceContentRemaining", "status": "True", "message": held}
    done = {
        "type": "NamespaceFinalizersRemaining",
        "status": "False",
        "message": "All content-preserving finalizers",
    }
    cluster.store.merge(KEY, {"metadata": {"deletionTimestamp": "2026-11-28T11:00:00Z"}}, "somebody")
    cluster.store.status(KEY, {"phase": "Terminating", "conditions": [leaving, done]})
    words = rf"models is being deleted \({held}\): nothing can be started in it.*name another one"
    with pytest.raises(Unavailable, match=words):
        runtime.capacity()


def test_one_that_may_not_be_looked_into_is_not_reached(runtime: KubernetesRuntime, cluster: Cluster) -> None:
    cluster.allowed = {
        rule for rule in granted() if not rule.namespaced
    }  # all that is left of an account's rights
    with pytest.raises(Unavailable, match="may not look into namespace models: it is not there, or"):
        runtime.capacity()


def test_a_role_of_before_goes_on_and_says_what_it_lacks(runtime: KubernetesRuntime, cluster: Cluster) -> None:
    cluster.allowed = granted() - {READ}
    found = runtime.capacity()
    assert found.cpu_millis == 8000
    assert found.reason.endswith("the role lacks get namespaces (see deploy/kubernetes/region)")
