"""What is asked of a cluster that says no, lags, restarts, loses things, or has other masters too."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from endpoints import capacity
from endpoints.runtimes.base import Phase, Rejected, Unavailable
from endpoints.runtimes.kubernetes import labels
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from endpoints.runtimes.kubernetes.trouble import Trouble
from tests.cluster.life import NAMESPACE, Life, node
from tests.cluster.server import Asked, Cluster, Rule
from tests.cluster.store import Object, Refusal
from tests.endpoints.runtimes.contract import ended, settled, the_one
from tests.endpoints.runtimes.kubernetes.conftest import OWNER, STUB, Region, workload
from tests.wait import until

DEPLOYMENT = ("deployments.apps", NAMESPACE, "endpoint-7-r1")


def deployment(cluster: Cluster) -> Object:
    return cluster.store.get(DEPLOYMENT)


def the_pod(cluster: Cluster, name: str) -> Object:
    return cluster.store.get(("pods", NAMESPACE, name))


# ── who goes ────────────────────────────────────────────────────────────────────────────────────
def test_the_one_that_is_named_goes_though_the_cluster_would_rather_take_a_pending_one(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1))
    old = the_one(runtime, "running").name
    cluster.store.delete(("nodes", "", "n1"), {})  # the next one finds no place
    runtime.apply(workload(2))
    fresh = the_one(runtime, "starting").name

    def make_another_meanwhile(asked: Asked) -> None:
        """The cluster replaces what was deleted before it hears that fewer are wanted."""
        if asked.verb == "patch" and asked.query.get("fieldManager") == "tir-console-replicas":
            life.tick()

    with cluster.fault(make_another_meanwhile):
        runtime.apply(workload(1, retire=(old,)))
    ended(runtime, old)
    until(lambda: set(runtime.observe()) == {fresh}, what="the replacement to go, and not the one before it")


def test_the_deletion_cost_decides_between_equals(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(3))
    victim = sorted(settled(runtime, "running", 3))[1]
    life.ending = 10**9
    runtime.apply(workload(2, retire=(victim,)))
    marks = the_pod(cluster, victim)["metadata"]["annotations"]
    assert marks[labels.DELETION_COST] == "-1000"
    assert not [one for one in cluster.asked if one.verb == "delete"]
    assert runtime.observe()[victim].phase == Phase.RUNNING  # until it is gone
    life.ending = 0


# ── who starts again ────────────────────────────────────────────────────────────────────────────
def test_a_pod_starts_again_by_itself_and_the_ends_are_counted_one_by_one(
    runtime: KubernetesRuntime, life: Life
) -> None:
    runtime.apply(workload(1))
    pod = the_one(runtime, "running").name
    life.kill(pod)
    until(lambda: f"{pod}.1" in runtime.observe(), what="the next life")
    assert set(settled(runtime, "running")) == {f"{pod}.1"}
    assert runtime.observe()[pod].exit_code == 137
    runtime.forget(pod)
    assert set(runtime.observe()) == {f"{pod}.1"}
    assert [line.text for line in runtime.logs(f"{pod}.1", 0, 9)] == ["hello from the engine"]
    assert [line.text for line in runtime.logs(pod, 0, 9)] == ["hello from the engine"]


def test_a_loop_is_an_end_and_the_next_ask_puts_another_pod_in_its_place(
    runtime: KubernetesRuntime, life: Life
) -> None:
    runtime.apply(workload(1, behave="crash"))
    one = until(lambda: next((o for o in runtime.observe().values() if o.reason == "CrashLoopBackOff"), None))
    assert (one.exit_code, one.message) == (1, "exit code 1: the engine gave up")
    assert [line.text for line in runtime.logs(one.name, -1, 9)] == ["the engine gave up"]
    pod = one.name.partition(".")[0]
    runtime.apply(workload(1, behave="crash"))
    until(lambda: all(not name.startswith(pod) for name in runtime.observe()), what="another pod")
    assert runtime.observe()


def test_forgetting_the_end_of_a_loop_ends_the_loop(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1, behave="crash"))
    one = until(lambda: next((o for o in runtime.observe().values() if o.reason == "CrashLoopBackOff"), None))
    runtime.forget(one.name)
    until(lambda: not runtime.observe(), what="an end of the loop")
    assert DEPLOYMENT not in cluster.store.objects


def test_a_failed_fetch_says_why(runtime: KubernetesRuntime, life: Life) -> None:
    fetch = {"kind": "s3", "bucket": "b", "files": ["a"]}
    life.restarts = False
    runtime.apply(workload(1, behave="unfetched", command=replace(STUB, fetch=fetch, credential="key")))
    until(lambda: len(runtime.observe()) == 2, what="the next life")
    found = runtime.observe()
    first, second = sorted(found)
    assert (found[first].reason, found[first].phase) == ("FetchFailed", Phase.EXITED)
    assert found[second].phase != Phase.EXITED


# ── what stays when nothing runs ────────────────────────────────────────────────────────────────
def test_the_last_word_takes_everything_away(runtime: KubernetesRuntime, cluster: Cluster, life: Life) -> None:
    runtime.apply(workload(1, secrets={"TOKEN": "abc"}))
    name = the_one(runtime, "running").name
    runtime.apply(workload(0))
    ended(runtime, name)
    assert DEPLOYMENT not in cluster.store.objects  # nor its Secrets, whether or not anybody forgets what ended
    runtime.forget(name)
    assert runtime.observe() == {}  # even while the pod's object outlives its containers
    until(
        lambda: {kind for kind, _, _ in cluster.store.objects} == {"namespaces", "nodes"},
        what="nothing to be left",
    )


def test_a_revision_that_is_wanted_again_is_not_taken_away(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1))
    name = the_one(runtime, "running").name
    runtime.apply(workload(0))
    ended(runtime, name)
    runtime.apply(workload(1))
    runtime.forget(name)
    assert deployment(cluster)["spec"]["replicas"] == 1
    settled(runtime, "running", 1)


def test_one_that_was_taken_away_meanwhile_is_never_made_again_from_half_of_it(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1))
    the_one(runtime, "running")
    gone = [False]

    def taken_away(asked: Asked) -> Refusal | None:
        if asked.verb == "patch" and asked.query.get("fieldManager") == "tir-console-replicas" and not gone[0]:
            gone[0] = True
            cluster.store.remove(DEPLOYMENT)
        return None

    with cluster.fault(taken_away), pytest.raises(Unavailable, match="uid mismatch"):
        runtime.apply(workload(0))
    assert DEPLOYMENT not in cluster.store.objects
    runtime.apply(workload(0))


# ── other masters ───────────────────────────────────────────────────────────────────────────────
def test_what_serves_is_never_rolled_by_an_upgrade_of_ours(
    region: Region, runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1, secrets={"TOKEN": "old"}))
    the_one(runtime, "running")
    before = deployment(cluster)["spec"]["template"]
    upgraded = region(pull_secrets=["new"])
    upgraded.apply(workload(2, secrets={"TOKEN": "new"}))
    settled(upgraded, "running", 2)
    assert deployment(cluster)["spec"]["template"] == before
    secret = cluster.store.get(("secrets", NAMESPACE, "endpoint-7-r1-env"))
    assert secret["data"] == {"TOKEN": "bmV3"}  # what starts from now on knows the new one


def test_the_number_is_ours_and_others_fields_are_theirs(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(2))
    settled(runtime, "running", 2)
    cluster.store.merge(
        DEPLOYMENT, {"spec": {"replicas": 5}, "metadata": {"labels": {"team": "red"}}}, "kubectl-scale"
    )
    settled(runtime, "running", 5)
    runtime.apply(workload(2))
    settled(runtime, "running", 2)
    assert deployment(cluster)["spec"]["replicas"] == 2
    assert deployment(cluster)["metadata"]["labels"]["team"] == "red"


def test_a_field_that_somebody_else_set_is_named_with_who_did(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1))
    the_one(runtime, "running")
    theirs = {"spec": {"replicas": 0, "template": {"spec": {"terminationGracePeriodSeconds": 1}}}}
    cluster.store.merge(DEPLOYMENT, theirs, "kubectl-edit")
    until(lambda: not runtime.observe(), what="their zero to be obeyed")
    with pytest.raises(Rejected, match=r"kubectl-edit.*terminationGracePeriodSeconds of our deployments.apps"):
        runtime.apply(workload(1))


def test_an_edit_of_what_a_pod_looks_like_replaces_nothing_that_serves(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(2))
    before = set(settled(runtime, "running", 2))
    until(lambda: deployment(cluster)["spec"].get("paused"), what="the Deployment to be kept as it is")
    template = {"spec": {"terminationGracePeriodSeconds": 1}}
    theirs = {"metadata": {"labels": {"team": "red"}}, "spec": {"replicas": 5, "template": template}}
    cluster.store.merge(DEPLOYMENT, theirs, "kubectl-edit")
    settled(runtime, "running", 5)
    runtime.apply(workload(2))
    assert set(settled(runtime, "running", 2)) == before
    assert deployment(cluster)["metadata"]["labels"]["team"] == "red"
    runtime.apply(workload(0))
    until(lambda: not runtime.observe(), what="a stop")
    runtime.apply(workload(1))  # a new start has a Deployment of its own
    settled(runtime, "running", 1)
    assert deployment(cluster)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 65


def test_more_pods_that_a_kept_deployment_can_t_make_say_why(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1))
    settled(runtime, "running", 1)
    life.quota = 'pods "x" is forbidden: exceeded quota: all, requested: cpu=1'
    with pytest.raises(Unavailable, match="exceeded quota"):
        runtime.apply(workload(2))
    life.quota = 'pods "x" is forbidden: failed quota: all: must specify limits.cpu for: model'
    with pytest.raises(Rejected, match=r"must specify limits\.cpu for: model\. A LimitRange of the namespace"):
        runtime.apply(workload(3))
    assert deployment(cluster)["spec"]["replicas"] == 1  # what can't be is asked for no more
    life.quota = ""


def test_what_is_left_of_a_revision_that_runs_nothing_is_tidied_away(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1))
    runtime.apply(workload(1, owner="endpoint-8"))
    settled(runtime, "running", 2)
    cluster.store.merge(DEPLOYMENT, {"spec": {"replicas": 0}}, "somebody")
    assert runtime.tidy((), at=0.0) == []
    assert [name for kind, _, name in cluster.store.objects if kind == "deployments.apps"] == ["endpoint-8-r1"]


def test_two_consoles_in_one_namespace_don_t_write_over_each_other(
    region: Region, runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1))
    the_one(runtime, "running")
    with pytest.raises(Rejected, match="another installation"):
        region(installation="theirs").apply(workload(3))
    assert deployment(cluster)["spec"]["replicas"] == 1


# ── what a server says ──────────────────────────────────────────────────────────────────────────
STALE = Refusal(409, "Conflict", "the object has been modified; please apply your changes to the latest version")


def test_a_list_of_files_that_no_cluster_takes_is_refused_in_words_before_anything_is_changed(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    before, files = set(cluster.store.objects), [f"weights/part-{n:05}-of-a-large-model" for n in range(30_000)]
    wanted = workload(command=replace(STUB, fetch={"kind": "s3", "bucket": "models", "files": files}))
    with pytest.raises(Rejected, match=r"30,000 files is .* MiB, and a cluster takes 1 MiB of it\. Name"):
        runtime.apply(wanted)
    assert set(cluster.store.objects) == before
    runtime.apply(replace(wanted, replicas=0))  # to end one that began before is no trouble


@pytest.mark.parametrize(
    "refusal", [STALE, Refusal(429, "TooManyRequests", "try again later")], ids=["409", "429"]
)
def test_what_passes_by_itself_is_tried_again(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life, refusal: Refusal
) -> None:
    cluster.fail(2, refusal, verb="patch", resource="deployments")
    runtime.apply(workload(1))
    settled(runtime, "running", 1)


def test_a_page_that_came_too_late_begins_the_list_anew(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(5, cpu_millis=100, memory_bytes=1 << 20))
    settled(runtime, "running", 5)
    cluster.page_size, cluster.expired_pages = 2, 1
    assert len(runtime.observe()) == 5
    cluster.expired_pages = 10**9
    with pytest.raises(Unavailable, match="too old"):
        runtime.observe()


def test_the_doorbell_survives_a_history_that_was_thrown_away(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1, behave="slow"))
    watched = [False]

    def compact_at_the_watch(asked: Asked) -> Refusal | None:
        if asked.verb == "watch" and not watched[0]:
            watched[0] = True
            cluster.store.status(("nodes", "", "n1"), node("n1")["status"] | {"phase": ""})
            cluster.store.compact()
            life.slow_go = True
        return None

    with cluster.fault(compact_at_the_watch):
        runtime.wait(OWNER, runtime.observe(), 30.0)
    assert watched[0]
    settled(runtime, "running", 1)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (Refusal(401, "Unauthorized", "Unauthorized"), "renew its kubeconfig"),
        (Refusal(500, "InternalError", "etcdserver: request timed out"), "etcdserver"),
        (
            Refusal(
                403, "Forbidden", 'User "x" cannot list resource "pods" in API group "" in the namespace "models"'
            ),
            "may not list pods in namespace models",
        ),
    ],
)
def test_an_outage_says_what_is_wrong_and_is_never_empty(
    runtime: KubernetesRuntime, cluster: Cluster, refusal: Refusal, words: str
) -> None:
    with cluster.fault(lambda _: refusal), pytest.raises(Unavailable, match=words):
        runtime.observe()


def test_a_verb_that_the_role_lacks_is_named(runtime: KubernetesRuntime, cluster: Cluster) -> None:
    cluster.allowed = set()
    with pytest.raises(Rejected, match=r"may not list deployments.apps in namespace models.*deploy/kubernetes"):
        runtime.apply(workload(1))


def test_what_the_server_finds_invalid_is_shown_with_its_field(
    runtime: KubernetesRuntime, cluster: Cluster
) -> None:
    causes = [{"field": "spec.template.spec.containers[0].image", "message": "Required value"}]
    with (
        cluster.fault(lambda one: Refusal(422, "Invalid", "is invalid", causes) if one.verb == "patch" else None),
        pytest.raises(Rejected, match=r"containers\[0\].image: Required value"),
    ):
        runtime.apply(workload(1))


def test_a_cluster_that_is_not_there_is_an_outage(region: Region, cluster: Cluster) -> None:
    runtime = region()
    cluster.stop()
    with pytest.raises(Unavailable, match="can't be reached"):
        runtime.observe()
    runtime.wait(OWNER, {}, 0.01)


def test_a_kubeconfig_that_can_t_be_read_is_an_outage_in_words(region: Region) -> None:
    with pytest.raises(Unavailable, match="access can't be read"):
        region(kubeconfig="/nonexistent/kubeconfig").observe()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('pods "x" is forbidden: exceeded quota: all, requested: cpu=1', Unavailable),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', Rejected),
    ],
)
def test_pods_that_can_t_be_made_say_why(
    runtime: KubernetesRuntime, life: Life, said: str, kind: type[Exception]
) -> None:
    life.quota = said
    with pytest.raises(kind, match=said.partition(": ")[2]):
        runtime.apply(workload(1))


# ── room ────────────────────────────────────────────────────────────────────────────────────────
def test_one_without_a_place_says_what_it_needs_and_what_there_is(runtime: KubernetesRuntime, life: Life) -> None:
    runtime.apply(workload(1, memory_bytes=64 << 30, cpu_millis=4000))
    one = until(lambda: next((o for o in runtime.observe().values() if o.reason), None))
    assert (one.phase, one.reason) == (Phase.STARTING, "Unschedulable")
    assert "needs 4 vCPU, 64 GiB; the largest that is free on one node is 8 vCPU, 32 GiB" in one.message


def test_one_that_says_nothing_has_its_warning_told(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1, behave="slow"))
    name = the_one(runtime, "starting").name
    event = {
        "involvedObject": {"uid": the_pod(cluster, name)["metadata"]["uid"]},
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'MountVolume.SetUp failed for volume "models": timed out',
        "lastTimestamp": "2026-11-28T11:00:00Z",
    }
    cluster.store.create(("events", NAMESPACE, "e1"), event)
    runtime.trouble = Trouble(runtime.api, NAMESPACE)  # what was read before is good for some seconds
    one = the_one(runtime, "starting")
    assert (one.reason, one.message.partition(":")[0]) == ("FailedMount", "A volume can't be mounted")
    life.slow_go = True
    assert the_one(runtime, "running").reason == ""


def test_bytes_of_a_fetch_are_told_while_it_goes_on(runtime: KubernetesRuntime, life: Life) -> None:
    fetching = replace(STUB, fetch={"files": ["a"]})
    runtime.apply(workload(1, command=fetching, behave="fetching"))
    told = until(lambda: the_one(runtime, "starting").fetched)
    assert told == (1 << 30, 2 << 30)
    life.slow_go = True
    assert the_one(runtime, "running").fetched is None


def test_only_nodes_that_take_instances_count(region: Region, cluster: Cluster) -> None:
    taint = {"key": "gpu", "effect": "NoSchedule"}
    cluster.store.create(("nodes", "", "n2"), node("n2", gpus=4, taints=[taint]))
    cluster.store.create(("nodes", "", "n3"), node("n3", unschedulable=True))
    assert (region().capacity().cpu_millis, region().capacity().gpus) == (8000, 0)
    pool: dict[str, Any] = {"tolerations": [{"key": "gpu", "operator": "Exists"}]}
    found = region(instance_types={"gpu": pool}).capacity()
    assert (found.cpu_millis, found.gpus) == (16000, 4)
    assert "2 nodes take instances" in found.reason


def test_room_is_what_fits_on_single_nodes_of_the_right_pool(region: Region, cluster: Cluster) -> None:
    labelled = node("n2", cpu="12", taints=[{"key": "gpu", "effect": "NoSchedule"}])
    labelled["metadata"]["labels"] = {"kind": "big"}
    cluster.store.create(("nodes", "", "n2"), labelled)
    pool = {"node_selector": {"kind": "big"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    found = region(instance_types={"big": pool}).capacity()

    def fitting(cpu: int, machine: str) -> int:
        return found.fitting(cpu_millis=cpu * 1000, memory_bytes=1 << 30, gpus=0, machine=machine)

    assert (found.cpu_millis, fitting(20, "big"), fitting(9, "small")) == (20_000, 0, 0)
    assert (fitting(5, "big"), fitting(5, "small"), fitting(4, "small")) == (2, 1, 2)
    assert capacity.read(json.loads(json.dumps(asdict(found)))) == found  # as a region's row keeps it


def test_what_may_not_be_seen_is_unknown_and_not_nothing(runtime: KubernetesRuntime, cluster: Cluster) -> None:
    cluster.allowed = {Rule("get", "", "namespaces", namespaced=True)}
    found = runtime.capacity()
    assert not found.known
    assert found.cpu_millis_free > 10**9
    assert "may not list nodes" in found.reason


def test_a_quota_leaves_less_than_the_nodes_have(runtime: KubernetesRuntime, cluster: Cluster) -> None:
    quota = {"spec": {}, "status": {"hard": {"requests.cpu": "3"}, "used": {"requests.cpu": "1"}}}
    cluster.store.create(("resourcequotas", NAMESPACE, "all"), quota)
    found = runtime.capacity()
    assert (found.cpu_millis, found.cpu_millis_free) == (8000, 2000)
    assert found.reason.endswith("the namespace's quota leaves 2 vCPU")


def test_a_node_that_vanishes_takes_its_pods_and_the_others_stay(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    runtime.apply(workload(1))
    lost = the_one(runtime, "running").name
    life.dead_nodes.add("n1")
    cluster.store.create(("nodes", "", "n2"), node("n2"))
    runtime.apply(workload(1, retire=(lost,)))  # it is silent, says the prober
    fresh = until(lambda: {n: o for n, o in runtime.observe().items() if n != lost and o.address})
    assert runtime.observe()[lost].phase == Phase.RUNNING  # nobody confirmed its end
    cluster.store.delete(("nodes", "", "n1"), {})
    cluster.store.remove(("pods", NAMESPACE, lost))  # the cluster's garbage collection
    assert set(runtime.observe()) == set(fresh)


@pytest.mark.parametrize(
    ("status", "said", "told", "kind"),
    [
        (404, 'namespaces "models" not found', "The cluster has no namespace models: make it", Unavailable),
        (
            403,
            'serviceaccounts "a" is forbidden: unable to create new content in namespace models because it is '
            "being terminated",
            "Nothing can be made in namespace models: it is being deleted.",
            Rejected,
        ),
    ],
)
def test_a_namespace_that_is_not_there_or_goes_is_named(
    runtime: KubernetesRuntime, cluster: Cluster, status: int, said: str, told: str, kind: type[Exception]
) -> None:
    with (
        cluster.fault(lambda asked: Refusal(status, "", said) if asked.verb in {"create", "patch"} else None),
        pytest.raises(kind, match=told),
    ):
        runtime.apply(workload(1))
