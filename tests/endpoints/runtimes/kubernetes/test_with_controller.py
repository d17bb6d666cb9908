"""The controller over a cluster that restarts, replaces and removes by itself: what people see of it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from endpoints import controller
from endpoints.models import Endpoint, Instance
from endpoints.planner import Probe
from endpoints.regions import replace_runtime
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from endpoints.spec import EnvironmentSpec
from tests import make
from tests.cluster.life import NAMESPACE, Life
from tests.cluster.server import Cluster
from tests.endpoints.steering import Steering, register_model
from tests.runtimes import InstantRuntime
from tests.wait import until

pytestmark = pytest.mark.django_db


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
    assert len(runtime.observe()) == 2  # the one that serves, and the end that is told of until it is forgotten
    endpoint.stop(by=None)
    until(lambda: steer(steering, endpoint) and not runtime.observe(), what=lambda: f"{runtime.observe()}")


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
