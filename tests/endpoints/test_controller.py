"""The loop against a real database: what it writes, what it asks the runtime for, and what it survives."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from endpoints import bell, controller, facts
from endpoints.lease import Lease, lease
from endpoints.models import Endpoint, Instance, Secret
from endpoints.models.deployment import DeploymentState, InstanceState
from endpoints.planner import Probe, limits
from endpoints.probes import Asked, Clock
from endpoints.regions import replace_runtime
from endpoints.runtimes.base import Observed
from tests import make
from tests.endpoints.steering import Steering, register_model
from tests.runtimes import AwayRuntime, CrashingRuntime, ForgetfulRuntime, InstantRuntime, SlowRuntime
from tests.wait import until

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def model() -> None:
    register_model()


def use(steering: Steering, runtime: InstantRuntime) -> None:
    steering.runtime = runtime
    replace_runtime("local", runtime)


def active(steering: Steering, instances: int = 1) -> Endpoint:
    endpoint = make.endpoint(wanted=instances)
    steering.until(endpoint, "active")
    return endpoint


def running(steering: Steering) -> list[str]:
    return [name for name, one in steering.runtime.instances.items() if one.phase != "exited"]


# ── the way up ───────────────────────────────────────────────────────────────────────────────────
def test_one_run_takes_a_launch_to_active(steering: Steering) -> None:
    endpoint = make.endpoint()
    assert steering.reconcile(endpoint)
    assert endpoint.status == "active"
    assert endpoint.observed_generation == endpoint.generation
    assert endpoint.serving_revision is not None
    deployment = endpoint.latest_deployment
    assert deployment is not None
    assert deployment.state == DeploymentState.SUCCEEDED
    phases = list(deployment.phases.all())
    assert [phase.state for phase in phases] == ["done"] * 6
    assert all(phase.started_at <= phase.ended_at for phase in phases)  # type: ignore[operator]
    assert phases[3].bytes_done == phases[3].bytes_total > 0  # type: ignore[operator]


def test_the_timeline_has_an_event_for_each_phase_and_instance(steering: Steering) -> None:
    endpoint = active(steering)
    kinds = list(endpoint.events.order_by("id").values_list("kind", flat=True))
    assert kinds.count("phase.ended") == 6
    assert kinds.index("instance.started") < kinds.index("instance.ready")
    assert kinds[0] == "deployment.started"
    assert "deployment.succeeded" in kinds


def test_the_runtime_gets_what_the_revision_says(steering: Steering) -> None:
    endpoint = active(steering)
    asked = steering.runtime.applied[0]
    assert (asked.owner, asked.revision, asked.replicas) == (endpoint.owner, 1, 1)
    assert asked.command is not None
    assert asked.command.alias == endpoint.name
    assert asked.command.model.endswith(".gguf")
    assert asked.cpu_millis == 2000


def test_an_instance_is_ready_only_after_its_real_call(steering: Steering) -> None:
    endpoint = make.endpoint()
    slow = SlowRuntime()
    use(steering, slow)
    steering.reconcile(endpoint)
    steering.sick.update(slow.instances)
    slow.let_go()
    steering.reconcile(endpoint)
    assert endpoint.status == "deploying"
    assert endpoint.instances.get().state == InstanceState.LOADING
    waiting = endpoint.latest_deployment.phases.get(kind="health")  # type: ignore[union-attr]
    assert waiting.reason == "ProbeFailed"
    steering.sick.clear()
    steering.reconcile(endpoint)
    assert endpoint.status == "active"


def test_a_launch_without_room_waits_with_numbers_and_goes_on(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    from endpoints.capacity import Capacity  # noqa: PLC0415

    full = Capacity(2000, 500, 8 << 30, 1 << 30, 0, 0, "a small machine")
    monkeypatch.setattr(steering.runtime, "capacity", lambda: full)
    endpoint = make.endpoint()
    steering.reconcile(endpoint)
    waiting = endpoint.latest_deployment.phases.get(kind="allocation")  # type: ignore[union-attr]
    assert waiting.reason == "Unschedulable"
    assert "needs 2 vCPU and 4 GiB; free here is 0.5 vCPU and 1.0 GiB. a small machine" in waiting.message
    monkeypatch.undo()
    replace_runtime("local", steering.runtime)
    monkeypatch.setattr(bell, "send", steering._send)
    steering.until(endpoint, "active")


# ── the way down ─────────────────────────────────────────────────────────────────────────────────
def test_a_deployment_that_crashes_says_how_with_its_last_lines(steering: Steering) -> None:
    endpoint = make.endpoint()
    use(steering, CrashingRuntime(65, "serving: the model is not a GGUF file"))
    steering.until(endpoint, "failed")
    deployment = endpoint.latest_deployment
    assert deployment is not None
    assert (deployment.state, deployment.reason) == (DeploymentState.FAILED, "BadModelFile")
    assert "not a GGUF file" in deployment.log_tail
    ended = endpoint.instances.get()
    assert (ended.state, ended.exit_code, ended.reason) == (InstanceState.FAILED, 65, "BadModelFile")


def test_a_failed_update_leaves_the_serving_revision_and_its_instances(steering: Steering) -> None:
    endpoint = active(steering, 2)
    before = set(running(steering))
    crashing = CrashingRuntime(1, "bad luck")
    crashing.add(*steering.runtime.instances.values())
    use(steering, crashing)
    endpoint.deploy(make.spec(endpoint.name), by=None, at=steering.clock())
    steering.until(endpoint, "active")
    assert endpoint.latest_deployment.state == DeploymentState.FAILED  # type: ignore[union-attr]
    assert endpoint.serving_revision.number == 1  # type: ignore[union-attr]
    assert set(running(steering)) == before


def test_a_workload_that_can_never_work_fails_with_the_runtime_s_words(steering: Steering) -> None:
    spec = make.spec()
    endpoint = make.endpoint()
    stored = endpoint.revisions.get().spec | {"name": endpoint.name}
    stored["environment"] = stored["environment"] | {"secrets": {"TOKEN": "gone"}}
    type(endpoint.revisions.get()).objects.filter(endpoint=endpoint).update(spec=stored)
    steering.until(endpoint, "failed")
    assert endpoint.latest_deployment.reason == "Rejected"  # type: ignore[union-attr]
    assert "“gone” is gone" in endpoint.latest_deployment.message  # type: ignore[union-attr]
    assert not Secret.objects.exists()
    assert spec.name != endpoint.name


@pytest.mark.parametrize("verb", ["stop", "delete_endpoint"])
@pytest.mark.parametrize("runtime", [InstantRuntime, SlowRuntime, CrashingRuntime, ForgetfulRuntime])
def test_stop_and_delete_leave_nothing_whatever_the_runtime_does(
    steering: Steering, verb: str, runtime: type[InstantRuntime]
) -> None:
    use(steering, runtime())
    endpoint = make.endpoint(wanted=2)
    steering.reconcile(endpoint)
    getattr(endpoint, verb)(by=None, at=steering.clock())
    steering.until(endpoint, "stopped" if verb == "stop" else "deleted")
    assert running(steering) == []
    assert not endpoint.instances.live().exists()


def test_a_cancelled_launch_starts_nothing_more(steering: Steering) -> None:
    use(steering, SlowRuntime())
    endpoint = make.endpoint()
    steering.reconcile(endpoint)
    assert len(running(steering)) == 1
    endpoint.cancel(by=None, at=steering.clock())
    steering.until(endpoint, "stopped")
    assert running(steering) == []


def test_a_killed_instance_is_replaced(steering: Steering) -> None:
    endpoint = active(steering, 2)
    gone = running(steering)[0]
    steering.runtime.kill(gone)
    steering.reconcile(endpoint)
    assert endpoint.status == "active"
    assert gone not in running(steering)
    failed = endpoint.instances.get(name=gone)
    assert (failed.state, failed.reason, failed.exit_code) == (InstanceState.FAILED, "Killed", 137)
    assert endpoint.instances.live().order_by("id").last().restarts == 1  # type: ignore[union-attr]


def test_crashes_while_serving_halt_and_a_start_reopens(steering: Steering) -> None:
    endpoint = active(steering)
    use(steering, CrashingRuntime(1, "bad"))
    steering.until(endpoint, "failed")
    assert endpoint.halted_reason == "CrashLoop"
    asked = len(steering.runtime.applied)
    steering.turn(minutes=30)
    steering.reconcile(endpoint)
    assert len(steering.runtime.applied) == asked
    use(steering, InstantRuntime())
    endpoint.start(by=None, at=steering.clock())
    steering.until(endpoint, "active")
    assert endpoint.halted_at is None


def test_a_silent_instance_leaves_the_routes_and_is_replaced_after_a_minute(steering: Steering) -> None:
    endpoint = active(steering)
    silent = running(steering)[0]
    steering.silent.add(silent)
    steering.until(endpoint, "degraded")
    row = endpoint.instances.get(name=silent)
    assert row.state == InstanceState.UNREADY
    assert row.unready_at is not None
    steering.until(endpoint, "active")
    assert silent not in running(steering)
    assert endpoint.instances.get(name=silent).reason == "Unresponsive"


def test_a_silent_instance_that_answers_again_serves_again(steering: Steering) -> None:
    endpoint = active(steering)
    steering.silent.update(running(steering))
    steering.until(endpoint, "degraded")
    steering.silent.clear()
    steering.until(endpoint, "active")
    assert endpoint.instances.get().unready_at is None


# ── outages and rivals ───────────────────────────────────────────────────────────────────────────
def test_an_outage_of_the_runtime_is_never_read_as_empty(steering: Steering) -> None:
    endpoint = active(steering, 2)
    away = AwayRuntime(away=False)
    away.add(*steering.runtime.instances.values())
    use(steering, away)
    away.away = True
    steering.reconcile(endpoint)
    assert endpoint.status == "active"
    assert endpoint.instances.live().filter(state=InstanceState.READY).count() == 2
    away.away = False
    steering.reconcile(endpoint)
    assert len(running(steering)) == 2


def test_what_the_runtime_refused_for_now_is_asked_again(steering: Steering) -> None:
    class Busy(AwayRuntime):
        def apply(self, workload):  # type: ignore[no-untyped-def]
            self.away = len(self.applied) == 0 and not self.refused
            self.refused = True
            super().apply(workload)
            self.away = False

        def observe(self, owner: str | None = None) -> dict[str, Observed]:
            self.away = False
            return super().observe(owner)

        refused = False

    use(steering, Busy(away=False))
    endpoint = make.endpoint()
    steering.until(endpoint, "active")
    assert len(running(steering)) == 1


def test_two_runs_at_once_are_one(steering: Steering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endpoints.lease.LENGTH", timedelta(hours=1))
    endpoint = make.endpoint()
    with lease(endpoint.pk) as held:
        assert held is not None
        assert not steering.reconcile(endpoint)
    assert steering.reconcile(endpoint)
    assert len(running(steering)) == 1


def test_a_killed_run_s_lease_ends_by_itself(steering: Steering) -> None:
    endpoint = make.endpoint(lease_token=uuid.uuid4(), lease_until=steering.clock() + timedelta(hours=1))
    assert not steering.reconcile(endpoint)
    Endpoint.objects.filter(pk=endpoint.pk).update(lease_until=steering.clock() - timedelta(seconds=1))
    assert steering.reconcile(endpoint)
    assert endpoint.status == "active"


class Meddled(InstantRuntime):
    """Somebody acts while the controller looks."""

    def __init__(self, meddle) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.meddle = meddle

    def observe(self, owner: str | None = None) -> dict[str, Observed]:
        answer = super().observe(owner)
        meddle, self.meddle = self.meddle, None
        if meddle:
            meddle()
        return answer


def test_a_run_that_lost_its_lease_writes_and_does_nothing(steering: Steering) -> None:
    endpoint = make.endpoint()

    def steal() -> None:
        rival = {"lease_token": uuid.uuid4(), "lease_until": steering.clock() + timedelta(hours=1)}
        Endpoint.objects.filter(pk=endpoint.pk).update(**rival)

    use(steering, Meddled(steal))
    events = endpoint.events.count()
    assert not steering.reconcile(endpoint)
    assert endpoint.events.count() == events
    assert endpoint.observed_generation == 0
    assert steering.sent == []
    assert endpoint.lease_token is not None  # the rival's


def test_a_plan_from_before_a_wish_is_not_written_over_it(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop and start while the controller plans: its plan is for a deployment that is over."""
    endpoint = make.endpoint()
    load = facts.load

    def meddled(*args, **kwargs):  # type: ignore[no-untyped-def]
        loaded = load(*args, **kwargs)
        monkeypatch.setattr(facts, "load", load)
        person = Endpoint.objects.get(pk=endpoint.pk)
        person.stop(by=None, at=steering.clock())
        return loaded

    monkeypatch.setattr(facts, "load", meddled)
    steering.until(endpoint, "stopped")
    first = endpoint.deployments.get()
    assert first.state == DeploymentState.CANCELLED
    assert not first.phases.filter(state="running").exists()
    assert running(steering) == []


def test_instances_started_by_a_killed_run_are_adopted_not_doubled(steering: Steering) -> None:
    endpoint = active(steering, 2)
    Instance.objects.filter(endpoint=endpoint).delete()
    Endpoint.objects.filter(pk=endpoint.pk).update(status="deploying")
    steering.until(endpoint, "active")
    assert endpoint.instances.live().count() == 2
    assert len(running(steering)) == 2


def test_without_valkey_a_drain_waits_for_its_deadline(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = active(steering, 2)
    monkeypatch.setattr(facts, "carried", lambda: None)
    begun = steering.clock()
    endpoint.scale(1, by=None, at=begun)
    while len(running(steering)) == 2:
        steering.reconcile(endpoint)
        steering.turn(seconds=1)
    assert steering.clock() - begun >= limits.DRAIN_DEADLINE
    assert endpoint.status == "active"


def test_a_valkey_that_has_heard_no_gateway_yet_knows_nothing_of_what_is_carried() -> None:
    for key in bell.valkey().scan_iter(facts.GATEWAYS):
        bell.valkey().delete(key)
    assert facts.carried() is None
    bell.valkey().set("tir:gateway:back", '{"source": "back", "endpoints": {}}', ex=5)
    assert facts.carried() == {}
    bell.valkey().delete("tir:gateway:back")


def test_a_first_call_longer_than_the_lease_keeps_it(steering: Steering, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = make.endpoint()
    kept = []
    monkeypatch.setattr(controller, "RENEW_AFTER", 0.001)
    monkeypatch.setattr(Lease, "keep", lambda self: kept.append(self.endpoint_id))
    answered = steering.probe

    def late(asked: Asked, clock: Clock) -> Probe:
        """Answers only once the lease was renewed a few times while it was asked."""
        until(lambda: len(kept) > 5, what="the lease to be renewed")
        return answered(asked, clock)

    steering.probe = late  # type: ignore[method-assign]
    steering.reconcile(endpoint)
    assert endpoint.status == "active"


# ── what it costs ────────────────────────────────────────────────────────────────────────────────
def test_a_run_that_finds_all_well_writes_only_its_lease(steering: Steering) -> None:
    endpoint = active(steering, 3)
    with CaptureQueriesContext(connection) as captured:
        steering.reconcile(endpoint)
    writes = [one["sql"] for one in captured.captured_queries if not one["sql"].startswith("SELECT")]
    assert len(writes) == 2, writes
    assert all("lease_token" in sql for sql in writes)


def test_a_look_at_something_that_loads_costs_few_queries_and_no_write(steering: Steering) -> None:
    use(steering, SlowRuntime())
    endpoint = make.endpoint()
    steering.reconcile(endpoint)
    with lease(endpoint.pk) as held, CaptureQueriesContext(connection) as captured:
        assert held is not None
        assert controller.one_pass(held, steering.clock, steering.probe, served=False)
    assert [one["sql"] for one in captured.captured_queries if not one["sql"].startswith("SELECT")] == []
    assert len(captured) <= 6
