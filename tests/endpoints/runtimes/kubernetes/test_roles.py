"""The role that an administrator grants: every verb that is used, and no other."""

from pathlib import Path

import pytest
import yaml

from endpoints.runtimes.base import Command, Image, Rejected
from tests.cluster.life import Life
from tests.cluster.server import Cluster, Rule
from tests.endpoints.runtimes.contract import ended, settled, the_one
from tests.endpoints.runtimes.kubernetes.conftest import OWNER, Region, workload
from tests.wait import until

REGION = Path(__file__).parents[4] / "deploy" / "kubernetes" / "region"


def granted() -> set[Rule]:
    """What the manifests allow."""
    documents = [one for path in sorted(REGION.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]
    return {
        Rule(verb, group, resource, one["kind"] == "Role")
        for one in documents
        if one["kind"] in {"Role", "ClusterRole"}
        for rule in one["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def a_whole_life(region: Region, life: Life) -> None:
    """Every verb of the runtime, in every way that asks something else of the cluster."""
    image = Image("ghcr.io/a/b:1", username="u", password="p")
    command = Command("custom", "", "demo", image=image, fetch={"files": ["a"]})
    runtime = region(cache="models")
    runtime.apply(workload(1, command=command, secrets={"TOKEN": "a"}))
    runtime.wait(OWNER, {}, 30.0)
    name = the_one(runtime, "running").name
    runtime.logs(name, 0, 10)
    runtime.usage()
    runtime.capacity()
    runtime.cached()
    runtime.tidy((), at=0)
    runtime.apply(workload(2, command=command, retire=(name,)))
    ended(runtime, name)
    settled(runtime, "running", 2)
    victim = sorted(runtime.observe())[0]
    life.kill(victim)
    until(lambda: f"{victim}.1" in settled(runtime, "running", 2))
    runtime.forget(victim)
    runtime.wait(OWNER, runtime.observe(), 0.01)
    runtime.apply(workload(1, revision=2, behave="slow"))
    settled(runtime, "starting", 1)
    runtime.apply(workload(0, revision=2))
    runtime.apply(workload(0))
    until(lambda: not runtime.observe())
    runtime.forget(name)


def test_the_role_has_every_verb_that_is_used_and_no_other(region: Region, cluster: Cluster, life: Life) -> None:
    cluster.allowed = granted()
    a_whole_life(region, life)
    missing, idle = cluster.used - granted(), granted() - cluster.used
    assert not missing
    assert not idle


@pytest.mark.parametrize("verb", ["list", "create", "patch"])
def test_without_a_verb_the_refusal_names_it(region: Region, cluster: Cluster, life: Life, verb: str) -> None:
    cluster.allowed = granted() - {Rule(verb, "apps", "deployments", namespaced=True)}
    with pytest.raises(Rejected, match=f"may not {verb} deployments.apps"):
        region().apply(workload(1))
