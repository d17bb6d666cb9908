"""A claim that keeps models: pods are told what is in use before they fetch, and what they saw is known here."""

import base64
import json
from typing import Any

import kubernetes_validate
import pytest

from endpoints.cached import Cached
from endpoints.runtimes.base import Command, Image, Unavailable
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from endpoints.sources import shared
from tests.cluster.life import NAMESPACE, Life
from tests.cluster.server import Cluster
from tests.cluster.store import Refusal
from tests.endpoints.runtimes.contract import settled
from tests.endpoints.runtimes.kubernetes.conftest import Region, workload
from tests.wait import until

SECRET = ("secrets", NAMESPACE, "tir-models-in-use")
ROOM = {"total": 100, "free": 20, "models": 3, "size": 80, "removed": 1, "removed_size": 30}


def fetching(revision: str = "1") -> Command:
    fetch = {"kind": "s3", "bucket": "b", "path": "", "revision": revision, "files": ["a.gguf"], "size": 10}
    return Command("custom", "", "demo", image=Image("registry.example/stub:1"), fetch=fetch)


def listed(cluster: Cluster) -> shared.InUse:
    told = json.loads(base64.b64decode(cluster.store.get(SECRET)["data"]["in-use.json"]))
    return shared.InUse(told["at"], frozenset(told["models"]))


def mounted(cluster: Cluster, owner: str) -> str:
    pod = next(one for one in cluster.store.all("pods") if one["metadata"]["labels"]["tir.owner"] == owner)
    (mount,) = (one for one in pod["spec"]["containers"][0]["volumeMounts"] if one["name"] == "models")
    return str(mount["subPath"])


@pytest.fixture
def runtime(region: Region) -> KubernetesRuntime:
    return region(cache="models")


def start(runtime: KubernetesRuntime, owner: str, revision: str, number: int) -> None:
    runtime.apply(workload(owner=owner, command=fetching(revision)))
    settled(runtime, "running", number)


def test_what_others_mount_is_told_before_a_pod_that_fetches_is_made(
    runtime: KubernetesRuntime, region: Region, cluster: Cluster, life: Life
) -> None:
    start(region(cache="models", installation="theirs"), "endpoint-9", "9", 1)
    start(runtime, "endpoint-1", "1", 1)
    cluster.asked.clear()
    start(runtime, "endpoint-2", "2", 2)
    written = [one.key for one in cluster.asked if one.verb == "patch"]
    assert written.index(SECRET) < written.index(("deployments.apps", NAMESPACE, "endpoint-2-r1"))
    assert listed(cluster).models == {mounted(cluster, "endpoint-9"), mounted(cluster, "endpoint-1")}
    runtime.tidy((), at=0)
    assert mounted(cluster, "endpoint-2") in listed(cluster).models


def test_what_nobody_runs_any_more_may_go_after_the_next_round(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    start(runtime, "endpoint-1", "1", 1)
    runtime.apply(workload(0, owner="endpoint-1"))
    until(lambda: not runtime.observe())
    before = listed(cluster).at
    runtime.tidy((), at=0)
    assert listed(cluster).models == frozenset()
    assert listed(cluster).at > before


def test_the_fetch_reads_the_list_and_starts_without_one_too(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(command=fetching()))
    made: dict[str, Any] = cluster.store.get(("deployments.apps", NAMESPACE, "endpoint-7-r1"))
    spec = made["spec"]["template"]["spec"]
    volume = next(one for one in spec["volumes"] if one["name"] == "in-use")
    assert volume["secret"] == {"secretName": SECRET[2], "defaultMode": 0o440, "optional": True}
    place = next(one for one in spec["initContainers"][0]["volumeMounts"] if one["name"] == "in-use")
    source = cluster.store.get(("secrets", NAMESPACE, "endpoint-7-r1-source"))
    asked = json.loads(base64.b64decode(source["data"]["source.json"]))
    assert asked["in_use"] == f"{place['mountPath']}/in-use.json"
    assert asked["report"] == "/dev/termination-log"
    kubernetes_validate.validate(cluster.store.get(SECRET), kubernetes_validate.latest_version(), strict=True)


def test_how_full_it_is_comes_with_the_last_fetch_whether_it_failed_or_not(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    assert runtime.cached() is None
    life.report = json.dumps({"path": "/x", "cache": ROOM})
    start(runtime, "endpoint-1", "1", 1)
    (pod,) = cluster.store.all("pods")
    end = pod["status"]["initContainerStatuses"][0]["state"]["terminated"]
    assert runtime.cached() == Cached("models", end["finishedAt"], **ROOM)

    def full(status: dict[str, Any]) -> dict[str, Any]:
        said = json.dumps({"error": "The cache is full.", "cache": ROOM | {"free": 1}})
        later = {"terminated": end | {"finishedAt": "2999-01-01T00:00:00Z", "exitCode": 1, "message": said}}
        (one,) = status["initContainerStatuses"]
        return status | {"initContainerStatuses": [one | {"state": {"waiting": {}}, "lastState": later}]}

    life.change(pod["metadata"]["name"], full)
    assert runtime.cached() == Cached("models", "2999-01-01T00:00:00Z", **(ROOM | {"free": 1}))


def test_a_region_without_a_claim_asks_for_nothing_and_an_outage_is_none_of_its_answers(
    runtime: KubernetesRuntime, region: Region, cluster: Cluster, life: Life
) -> None:
    bare = region()
    bare.apply(workload())
    bare.tidy((), at=0)
    assert SECRET not in cluster.store.objects
    assert bare.cached() is None
    cluster.fail(9, Refusal(503, "ServiceUnavailable", "away"))
    with pytest.raises(Unavailable):
        runtime.cached()


def test_other_words_are_no_measurement(runtime: KubernetesRuntime, cluster: Cluster, life: Life) -> None:
    life.report = '{"cache": {"total": 1}}'
    runtime.apply(workload(command=fetching()))
    settled(runtime, "running", 1)
    assert runtime.cached() is None
