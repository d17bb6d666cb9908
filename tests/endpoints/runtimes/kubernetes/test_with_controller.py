"""The controller over a cluster that restarts, replaces and removes by itself: what people see of it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from endpoints import controller
from endpoints.models import Endpoint, Instance, MemoryFloor, Phase, Region, Secret
from endpoints.models.deployment import PhaseKind, PhaseState
from endpoints.planner import Probe
from endpoints.regions import replace_runtime
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from endpoints.spec import ContainerSpec, EnvironmentSpec, Framework, Method, SourceKind, SourceSpec
from tests import make, wait
from tests.cluster.life import NAMESPACE, Life
from tests.cluster.server import Cluster
from tests.endpoints.steering import Steering, register_model
from tests.oci import Registry, image
from tests.runtimes import InstantRuntime

pytestmark = pytest.mark.django_db
until = partial(wait.until, seconds=240)  # each look is a run of the loop over HTTP: on a busy machine, seconds


@pytest.fixture
def steering(monkeypatch: pytest.MonkeyPatch, runtime: KubernetesRuntime, life: Life) -> Iterator[Steering]:
    made = Steering(InstantRuntime(), monkeypatch)
    replace_runtime("local", runtime)
    register_model()
    yield made
    replace_runtime("local", None)


def steer(steering: Steering, endpoint: Endpoint) -> Endpoint:
    """One run of the loop, which gives the cluster a moment whenever it rests."""

    def rest(turn: controller.Turn, seconds: float) -> None:
        steering.turn(seconds=seconds)
        turn.runtime.wait(turn.endpoint.owner, turn.observed, 0.05)

    controller.reconcile(endpoint.pk, clock=steering.clock, rest=rest, prober=steering.probe)
    steering.turn(seconds=2)
    endpoint.refresh_from_db()
    return endpoint


def test_a_crash_while_it_serves_is_counted_and_the_pod_goes_on(
    steering: Steering, runtime: KubernetesRuntime, life: Life
) -> None:
    endpoint = make.endpoint()
    until(lambda: steer(steering, endpoint).status == "active", what=lambda: endpoint.status)
    first = Instance.objects.get()
    life.kill(first.name, 137, "OOMKilled")
    until(
        lambda: (
            steer(steering, endpoint) and Instance.objects.filter(state="ready", name=f"{first.name}.1").exists()
        ),
        what=lambda: f"{list(Instance.objects.values())}",
    )
    first.refresh_from_db()
    assert (first.state, first.exit_code) == ("failed", 137)
    assert "memory" in first.message
    assert MemoryFloor.objects.get().limit_bytes == first.revision.instance_type.memory_bytes
    assert len(runtime.observe()) == 2  # the one that serves, and the end that is told of until it is forgotten
    endpoint.stop(by=None)
    until(lambda: steer(steering, endpoint) and not runtime.observe(), what=lambda: f"{runtime.observe()}")


def test_a_custom_image_s_report_stands_in_its_container_build(
    steering: Steering, runtime: KubernetesRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "probe", lambda *_: Probe(None, message="nothing listens there yet"))
    make.region()
    Region.objects.update(runtime="kubernetes")
    make.instance_type()
    with Registry(users={"bob": "hunter2-of-bob"}, private=True) as registry:
        digest = registry.push("team/own", "1", image(User="app"))
        project = make.project()
        Secret.store(project, "registry", "hunter2-of-bob", by=make.user())
        own = ContainerSpec(registry.name("team/own:1"), registry_username="bob", registry_secret="registry")
        wish = make.spec(method=Method.CUSTOM, framework=Framework.CUSTOM, container=own)
        wish = replace(wish, source=SourceSpec(kind=SourceKind.NONE, revision=""))
        endpoint = Endpoint.launch(project, wish, by=make.user())
        build = Phase.objects.filter(deployment__endpoint=endpoint, kind=PhaseKind.BUILD)
        done = build.filter(state=PhaseState.DONE)
        until(lambda: steer(steering, endpoint) and done.exists(), what=lambda: f"{list(build.values())}")
    phase = build.get()
    assert digest in phase.log.splitlines()[0]
    assert "Look at this: user: the image's is app, so it runs as 65532. It writes only to /tmp." in phase.log
    assert "The node that takes an instance pulls" in phase.message
    assert "Its requirements: 5 good, 1 to look at." in phase.message
    assert "hunter2-of-bob" not in phase.log + phase.message


def test_an_evicted_one_is_sent_nothing_more_and_its_successor_stays(
    steering: Steering, runtime: KubernetesRuntime, cluster: Cluster, life: Life
) -> None:
    endpoint = make.endpoint()
    until(lambda: steer(steering, endpoint).status == "active", what=lambda: endpoint.status)
    first = Instance.objects.get()
    life.ending = 10**9  # what it carries takes its time
    life.made_at = steering.clock()
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    life.change(first.name, lambda status: {**status, "conditions": [*status["conditions"], target]})
    cluster.store.delete(("pods", NAMESPACE, first.name), {})
    until(
        lambda: steer(steering, endpoint) and Instance.objects.filter(state="ready").exclude(pk=first.pk).exists(),
        what=lambda: f"{list(Instance.objects.values())}",
    )
    first.refresh_from_db()
    assert first.state == "draining"
    cluster.store.remove(("pods", NAMESPACE, first.name))
    until(lambda: steer(steering, endpoint) and len(runtime.observe()) == 1, what=lambda: f"{runtime.observe()}")
    first.refresh_from_db()
    assert first.state == "stopped"
    assert sorted(Instance.objects.values_list("state", flat=True)) == ["ready", "stopped"]


def test_a_loop_fails_the_deployment_with_its_words_and_leaves_nothing_running(
    steering: Steering, runtime: KubernetesRuntime, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "probe", lambda *_: Probe(None, message="nothing listens there yet"))
    make.instance_type()
    wish = make.spec()
    crashing = replace(wish, environment=EnvironmentSpec(variables={"BEHAVE": "crash"}))
    endpoint = Endpoint.launch(make.project(), crashing, by=make.user())
    until(lambda: steer(steering, endpoint).status == "failed", what=lambda: endpoint.status)
    deployment = endpoint.latest_deployment
    assert deployment is not None
    assert deployment.reason == "CrashLoop"
    assert "the engine gave up" in deployment.message
    assert "the engine gave up" in deployment.log_tail

    def gone() -> bool:
        steer(steering, endpoint)
        for one in Instance.objects.exclude(ended_at=None):
            runtime.forget(one.name)  # as the collector of logs does
        return not runtime.observe()

    until(gone, what=lambda: f"{runtime.observe()}")
    names = [
        name for kind, space, name in cluster.store.objects if kind == "deployments.apps" and space == NAMESPACE
    ]
    assert all(cluster.store.get(("deployments.apps", NAMESPACE, name))["spec"]["replicas"] == 0 for name in names)
