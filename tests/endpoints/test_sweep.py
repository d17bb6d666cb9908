"""The timer behind every doorbell: wakes what is due, and nothing else, at a constant price."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from endpoints import bell, sweep
from endpoints.models import Endpoint, Region
from endpoints.planner import limits
from endpoints.regions import measure, replace_runtime
from endpoints.runtimes.base import Observed, PartlyUnavailable, Phase
from tests import crowd, make
from tests.endpoints.steering import Steering, register_model
from tests.runtimes import AwayRuntime, CrashingRuntime, InstantRuntime, SlowRuntime, now

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def model() -> None:
    register_model()


def swept(steering: Steering, turn: int = 0) -> list[int]:
    return sweep.sweep(at=steering.clock(), turn=turn, prober=steering.probe)


def active(steering: Steering, instances: int = 1) -> Endpoint:
    endpoint = make.endpoint(wanted=instances)
    steering.until(endpoint, "active")
    return endpoint


def use(steering: Steering, runtime: InstantRuntime) -> None:
    runtime.add(*steering.runtime.instances.values())
    steering.runtime = runtime
    replace_runtime("local", runtime)


def test_nothing_to_do_wakes_nobody_and_writes_nothing(steering: Steering) -> None:
    active(steering, 2)
    with CaptureQueriesContext(connection) as captured:
        for turn in range(5):
            assert swept(steering, turn) == []
    assert all(one["sql"].startswith("SELECT") for one in captured.captured_queries)


def test_a_sweep_costs_the_same_queries_for_many_as_for_few(steering: Steering) -> None:
    counts = []
    for more in (1, 20):
        crowd.serving(steering.runtime, more, 3) if more == 1 else _more(steering, more)
        with CaptureQueriesContext(connection) as captured:
            assert swept(steering) == []
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 8


class HalfAway(InstantRuntime):
    """A part of it is away, with all that belongs to these owners."""

    def __init__(self, *owners: str) -> None:
        super().__init__()
        self.owners = owners

    def observe(self, owner: str | None = None) -> dict[str, Observed]:
        if owner is None or owner in self.owners:
            raise PartlyUnavailable("one host does not answer")
        return super().observe(owner)


def test_a_part_that_is_away_stops_only_what_lies_there(steering: Steering) -> None:
    there, here = active(steering), active(steering)
    half = HalfAway(there.owner)
    use(steering, half)
    for owner in (there.owner, here.owner):
        half.lose(*(name for name, one in half.instances.items() if one.owner == owner))
    assert swept(steering) == [here.pk]


def _more(steering: Steering, endpoints: int) -> None:
    for _ in range(endpoints):
        made = make.endpoint(ready=2)
        seen = Observed("", made.owner, 1, Phase.RUNNING, "http://127.0.0.1:9", None, "", now(), None)
        for one in made.instances.all():
            Endpoint.objects.filter(pk=made.pk).update(wished_at=now() - timedelta(hours=1))
            made.instances.filter(pk=one.pk).update(address=seen.address)
            steering.runtime.add(replace(seen, name=one.name))


def test_a_launch_whose_ring_was_lost_is_found(steering: Steering) -> None:
    endpoint = make.endpoint()
    assert swept(steering) == [endpoint.pk]
    assert ("endpoints.reconcile", endpoint.pk) in steering.sent


def test_a_wish_whose_ring_was_lost_is_found(steering: Steering) -> None:
    endpoint = active(steering)
    endpoint.scale(3, by=None, at=steering.clock())
    assert swept(steering) == [endpoint.pk]


def test_a_killed_instance_is_found(steering: Steering) -> None:
    endpoint, _ = active(steering), active(steering)
    steering.runtime.kill(next(iter(steering.runtime.observe(endpoint.owner))))
    assert swept(steering) == [endpoint.pk]


def test_every_instance_that_serves_is_probed_within_five_sweeps(steering: Steering) -> None:
    active(steering, 5)
    asked: list[str] = []

    def note(one, clock):  # type: ignore[no-untyped-def]
        asked.append(one.name)
        assert not one.prove
        return steering.probe(one, clock)

    for turn in range(sweep.PROBE_SHARE):
        sweep.sweep(at=steering.clock(), turn=turn, prober=note)
    assert sorted(asked) == sorted(steering.runtime.instances)


def test_a_silent_instance_is_asked_at_every_sweep(steering: Steering) -> None:
    endpoint = active(steering)
    steering.silent.update(steering.runtime.instances)
    steering.until(endpoint, "degraded")
    steering.silent.clear()
    for turn in range(sweep.PROBE_SHARE):
        assert swept(steering, turn) == [endpoint.pk]


def test_a_silent_instance_that_is_waited_for_wakes_nobody(steering: Steering) -> None:
    endpoint = active(steering)
    steering.silent.update(steering.runtime.instances)
    steering.until(endpoint, "degraded")
    assert swept(steering) == []
    steering.turn(seconds=limits.UNREADY_DEADLINE.total_seconds())
    assert swept(steering) == [endpoint.pk]


def test_a_wait_before_a_new_start_wakes_nobody_until_it_is_over(steering: Steering) -> None:
    endpoint = active(steering)
    use(steering, CrashingRuntime(1, "bad"))
    steering.runtime.kill(*[one.name for one in steering.runtime.instances.values() if one.exit_code is None])
    while endpoint.instances.filter(state="failed").count() < 4:
        steering.reconcile(endpoint)
        steering.turn(seconds=1)
    assert swept(steering) == []
    steering.turn(seconds=5)
    assert swept(steering) == [endpoint.pk]


def test_an_outage_of_the_runtime_wakes_nobody(steering: Steering) -> None:
    active(steering)
    use(steering, AwayRuntime())
    steering.turn(minutes=1)
    assert swept(steering) == []


def test_a_region_whose_settings_make_no_sense_stops_no_other(steering: Steering) -> None:
    lost, sound = make.endpoint(), make.endpoint()
    wrong = make.region("a-wrong-one", name="Away")  # which is looked at first
    Region.objects.filter(pk=wrong.pk).update(config={"nonsense": True}, runtime="docker")
    Endpoint.objects.filter(pk=lost.pk).update(region=wrong)
    assert swept(steering) == [sound.pk]
    steering.reconcile(lost)
    measure(Region.objects.get(pk=wrong.pk), at=steering.clock())
    assert "nonsense" in Region.objects.get(pk=wrong.pk).problem


def test_one_endpoint_that_can_t_be_planned_stops_no_other(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = make.endpoint(), make.endpoint()
    broken.latest_deployment.phases.all().delete()  # type: ignore[union-attr]
    broken.latest_deployment.phases.create(kind="unknown", position=0)  # type: ignore[union-attr]
    assert swept(steering) == [sound.pk]


# ── what runs for nobody ─────────────────────────────────────────────────────────────────────────
def _orphan(steering: Steering, owner: str) -> str:
    name = f"{owner}-r1-x"
    steering.runtime.add(Observed(name, owner, 1, Phase.RUNNING, None, None, "", now(), None))
    return name


def test_what_runs_for_a_deleted_endpoint_is_ended(steering: Steering) -> None:
    endpoint = active(steering)
    endpoint.delete_endpoint(by=None, at=steering.clock())
    steering.until(endpoint, "deleted")
    name = _orphan(steering, endpoint.owner)
    swept(steering)
    assert steering.runtime.instances[name].phase == Phase.EXITED


def test_what_runs_for_an_endpoint_of_another_region_in_the_same_place_is_left_alone(steering: Steering) -> None:
    endpoint = active(steering)
    elsewhere = make.region("elsewhere", name="Beside")
    Endpoint.objects.filter(pk=endpoint.pk).update(region=elsewhere)
    replace_runtime("elsewhere", steering.runtime)
    assert swept(steering) == []
    replace_runtime("elsewhere", None)
    assert all(one.phase == Phase.RUNNING for one in steering.runtime.instances.values())


def test_an_outage_while_ending_what_is_orphaned_stops_no_sweep(steering: Steering) -> None:
    endpoint = make.endpoint()
    use(steering, AwayRuntime(away=False))
    name = _orphan(steering, "endpoint-999999")
    away = steering.runtime
    assert isinstance(away, AwayRuntime)
    apply = away.apply

    def refuse(workload):  # type: ignore[no-untyped-def]
        away.away = True
        apply(workload)

    away.apply = refuse  # type: ignore[method-assign]
    assert swept(steering) == [endpoint.pk]
    away.away, away.apply = False, apply  # type: ignore[method-assign]
    swept(steering)
    assert away.instances[name].phase == Phase.EXITED


# ── its own doors ────────────────────────────────────────────────────────────────────────────────
def test_two_sweeps_at_once_are_one(steering: Steering) -> None:
    make.endpoint()
    rival = connections.create_connection("default")
    try:
        with rival.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [sweep.LOCK])
        assert swept(steering) == []
        with rival.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [sweep.LOCK])
        assert len(swept(steering)) == 1
    finally:
        rival.close()


def test_a_wake_is_dropped_when_no_worker_took_it_in_time(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, object]] = []
    monkeypatch.setattr(bell, "send", lambda task, *_, **options: sent.append(options))
    use(steering, SlowRuntime())
    make.endpoint()
    sweep.sweep(at=steering.clock(), prober=steering.probe)
    assert sent == [{"expires": sweep.MESSAGE_SECONDS}]
