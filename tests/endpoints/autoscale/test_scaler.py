"""From what gateways say to what runs: who decides, who is asked, what is written, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from endpoints import bell, facts, scaler
from endpoints.autoscale.hearing import SILENCE
from endpoints.models import Endpoint, Event, Instance, Region
from endpoints.planner import limits
from endpoints.regions import replace_runtime
from endpoints.spec import ScalingSpec
from monitoring.models import Sample
from monitoring.samples import slot_of
from tests import make
from tests.endpoints.steering import Steering, register_model
from tests.runtimes import InstantRuntime

pytestmark = pytest.mark.django_db
DELAY = 60


class Gateways:
    """What gateways say: requests in flight by endpoint, shared out over its ready instances."""

    def __init__(self, steering: Steering) -> None:
        self.steering = steering
        self.load: dict[int, int] = {}
        self.queued: dict[int, int] = {}
        self.sources = ["a", "b"]
        self.left: set[str] = set()  # those whose word is their last
        self.away = False
        self.carried: dict[str, int] = {}  # at instances that get nothing new

    def ticks(self) -> list[dict[str, Any]] | None:
        return None if self.away else [self._tick(source) for source in self.sources]

    def _tick(self, source: str) -> dict[str, Any]:
        return {
            "source": source,
            "left": source in self.left,
            "endpoints": {
                str(pk): {"in_flight": self._share(pk, source), "queued": self.queued.get(pk, 0)}
                for pk in self.load.keys() | self.queued.keys()
            },
        }

    def _share(self, pk: int, source: str) -> dict[str, int]:
        names = list(
            Instance.objects.filter(endpoint=pk, state="ready").order_by("id").values_list("name", flat=True)
        )
        shared = dict.fromkeys(names, 0)
        for nth in range(self.load.get(pk, 0)):
            if self.sources[nth % len(self.sources)] == source and names:
                shared[names[nth % len(names)]] += 1
        return {name: count for name, count in (shared | self.carried).items() if count}

    def pass_time(self, seconds: int, *endpoints: Endpoint) -> None:
        """Every two seconds a decision, then the controller where there are endpoints to steer. After half a
        minute every six seconds: that is still no gap in what is known."""
        passed = 0
        while passed < seconds:
            pace = 2 if passed < 30 else min(6, seconds - passed)
            passed += pace
            self.steering.turn(seconds=pace)
            scaler.autoscale(at=self.steering.clock())
            for one in endpoints:
                if self._moves(one):
                    self.steering.reconcile(one)
        for one in endpoints:
            one.refresh_from_db()

    def _moves(self, endpoint: Endpoint) -> bool:
        """Whether the controller has anything to do there."""
        endpoint.refresh_from_db(fields=["wanted", "status"])
        states = list(Instance.objects.live().filter(endpoint=endpoint).values_list("state", flat=True))
        return states != ["ready"] * endpoint.wanted or endpoint.status not in ("active", "idle")


@pytest.fixture
def gateways(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateways]:
    made = Gateways(Steering(InstantRuntime(), monkeypatch))
    register_model()
    for key in (facts.HEARD, *bell.valkey().scan_iter(f"{scaler.HISTORY}*")):
        bell.valkey().delete(key)
    monkeypatch.setattr(facts, "ticks", made.ticks)
    yield made
    replace_runtime("local", None)


def active(gateways: Gateways, instances: int = 1, **columns: Any) -> Endpoint:
    endpoint = make.endpoint(**{"wanted": instances, "scale_down_delay": DELAY} | columns)
    gateways.steering.until(endpoint, "active")
    return endpoint


def decisions(endpoint: Endpoint) -> list[Event]:
    return list(endpoint.events.filter(kind="endpoint.autoscaled").order_by("id"))


# ── the whole way ────────────────────────────────────────────────────────────────────────────────
def test_load_brings_instances_and_its_end_takes_them_away(gateways: Gateways) -> None:
    endpoint = active(gateways)
    gateways.load[endpoint.pk] = 27
    gateways.pass_time(12, endpoint)
    assert (endpoint.wanted, endpoint.status) == (3, "active")
    assert Instance.objects.filter(endpoint=endpoint, state="ready").count() == 3
    gateways.load[endpoint.pk] = 0
    gateways.pass_time(DELAY + 90, endpoint)
    assert (endpoint.wanted, endpoint.status) == (1, "active")
    assert Instance.objects.live().filter(endpoint=endpoint).count() == 1


def test_a_region_that_can_not_be_counted_stops_no_scaling(gateways: Gateways) -> None:
    Region.objects.update(capacity={"reason": "The console may not see nodes."})
    endpoint = active(gateways)
    gateways.load[endpoint.pk] = 27
    gateways.pass_time(12, endpoint)
    assert endpoint.wanted == 3


def test_a_decision_is_an_event_with_its_inputs_and_nobody_as_its_maker(gateways: Gateways) -> None:
    endpoint = active(gateways)
    gateways.load[endpoint.pk] = 27
    gateways.pass_time(8)
    (event,) = decisions(endpoint)
    assert (event.before, event.after, event.actor, event.actor_key) == ("1", "3", None, None)
    assert event.message == "wanted 3: 27 in flight / target 10; 1 ready"
    assert event.who == "Controller"


def test_a_decision_rings_the_controller(gateways: Gateways, django_capture_on_commit_callbacks: Any) -> None:
    endpoint = active(gateways)
    gateways.load[endpoint.pk] = 27
    gateways.steering.sent.clear()
    with django_capture_on_commit_callbacks(execute=True):
        gateways.pass_time(8)
    assert ("endpoints.reconcile", endpoint.pk) in gateways.steering.sent


def test_what_waits_at_the_gateways_counts(gateways: Gateways) -> None:
    endpoint = active(gateways)
    gateways.queued[endpoint.pk] = 10  # at each of two
    gateways.pass_time(8, endpoint)
    assert endpoint.wanted == 2


def test_an_answer_under_way_ends_before_its_instance(gateways: Gateways) -> None:
    endpoint = active(gateways, 2)
    gateways.carried = {one.name: 1 for one in endpoint.instances.all()}
    gateways.load[endpoint.pk] = 0
    gateways.steering.until(endpoint, "active")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "carried", lambda: gateways.carried)
        gateways.pass_time(DELAY + 10, endpoint)
        assert endpoint.wanted == 1
        gateways.steering.turn(seconds=limits.DRAIN_DEADLINE.total_seconds())
        gateways.pass_time(30, endpoint)
        assert Instance.objects.live().filter(endpoint=endpoint).count() == 2
        gateways.carried = {}
        gateways.pass_time(10, endpoint)
    assert Instance.objects.live().filter(endpoint=endpoint).count() == 1


# ── sleep ────────────────────────────────────────────────────────────────────────────────────────
def test_without_requests_it_sleeps_and_a_call_brings_it_back(gateways: Gateways) -> None:
    endpoint = active(gateways, 2, min_instances=0)
    gateways.pass_time(DELAY + 60, endpoint)
    gateways.steering.until(endpoint, "idle")
    assert endpoint.wanted == 0
    assert not Instance.objects.live().filter(endpoint=endpoint).exists()
    assert decisions(endpoint)[-1].message == "wanted 0: no request for 60 s; the next one wakes it"
    assert endpoint.wake(why="A request came.", at=gateways.steering.clock())
    gateways.queued[endpoint.pk] = 1
    gateways.pass_time(2, endpoint)
    assert endpoint.status in ("scaling", "active")
    gateways.steering.until(endpoint, "active")
    said = [event.after for event in endpoint.events.filter(kind="endpoint.status", before="Scaled to zero")]
    assert said == ["Scaling"]
    assert endpoint.wanted == 1


@pytest.mark.parametrize("what", ["load", "queued"])
def test_one_that_works_or_waits_keeps_it_awake(gateways: Gateways, what: str) -> None:
    endpoint = active(gateways, min_instances=0)
    getattr(gateways, what)[endpoint.pk] = 1
    gateways.pass_time(3 * DELAY)
    endpoint.refresh_from_db()
    assert (endpoint.wanted, decisions(endpoint)) == (1, [])


def test_many_who_call_at_once_wake_it_once(gateways: Gateways) -> None:
    endpoint = active(gateways, min_instances=0)
    assert endpoint.scale(0, by=None)
    wished = endpoint.wished_at
    assert [Endpoint.objects.get(pk=endpoint.pk).wake(why="A request came.") for _ in range(3)] == [
        True, False, False,
    ]  # fmt: skip
    (event,) = endpoint.events.filter(kind="endpoint.woken")
    assert (event.before, event.after, event.message, event.who) == ("0", "1", "A request came.", "Controller")
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.wished_at) == (1, wished)


@pytest.mark.parametrize("how", ["stopped", "deleted", "halted"])
def test_no_call_wakes_what_only_a_person_can(gateways: Gateways, how: str) -> None:
    endpoint = active(gateways, min_instances=0)
    endpoint.scale(0, by=None)
    if how == "halted":
        Endpoint.objects.filter(pk=endpoint.pk).update(halted_at=gateways.steering.clock())
    else:
        Endpoint.objects.filter(pk=endpoint.pk).update(desired=how)
    assert endpoint.wake(why="A request came.") is False
    endpoint.refresh_from_db()
    assert endpoint.wanted == 0


# ── what is not known ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("how", ["away", "silent"])
def test_without_a_word_from_any_gateway_nothing_is_decided(gateways: Gateways, how: str) -> None:
    endpoint = active(gateways, 4)
    gateways.away = how == "away"
    gateways.sources = []
    gateways.pass_time(4 * DELAY, endpoint)
    assert endpoint.wanted == 4


def test_while_one_gateway_is_silent_nothing_is_taken(gateways: Gateways) -> None:
    endpoint = active(gateways, 4)
    gateways.load[endpoint.pk] = 38
    gateways.pass_time(10, endpoint)
    gateways.sources, gateways.load[endpoint.pk] = ["a"], 19
    gateways.pass_time(int(SILENCE.total_seconds()) - 10, endpoint)
    assert endpoint.wanted == 4
    gateways.pass_time(DELAY + 30, endpoint)
    assert endpoint.wanted < 4


def test_what_is_carried_is_unknown_while_a_gateway_is_silent_that_did_not_leave(gateways: Gateways) -> None:
    endpoint = active(gateways, 2)
    gateways.pass_time(4, endpoint)
    gateways.carried = {"old": 1}
    gateways.load[endpoint.pk] = 0
    assert facts.carried() == {"old": 2}
    gateways.sources = ["a"]
    gateways.pass_time(10, endpoint)
    assert facts.carried() is None
    gateways.sources, gateways.left = ["a", "b"], {"b"}
    gateways.pass_time(2, endpoint)
    gateways.sources = ["a"]
    assert facts.carried() == {"old": 1}


def test_a_lost_memory_keeps_what_is_wanted_for_the_delay(gateways: Gateways) -> None:
    endpoint = active(gateways, 3)
    gateways.pass_time(DELAY - 10, endpoint)
    bell.valkey().delete(f"{scaler.HISTORY}{endpoint.pk}")
    gateways.pass_time(DELAY - 10, endpoint)
    assert endpoint.wanted == 3


def test_a_memory_that_makes_no_sense_is_forgotten(gateways: Gateways, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = active(gateways, 3)
    bell.valkey().set(f"{scaler.HISTORY}{endpoint.pk}", "[1]")
    bell.valkey().set(facts.HEARD, '{"a": "soon"}')
    gateways.pass_time(4, endpoint)
    assert caplog.text.count("makes no sense") == 2
    assert endpoint.wanted == 3


def test_the_words_of_real_ticks_are_read(gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    tick = {"source": "t1", "endpoints": {"7": {"in_flight": {"x": 2}}}}
    bell.valkey().set("tir:gateway:t1", json.dumps(tick), ex=60)
    said = facts.ticks()
    assert said
    assert tick in said
    bell.valkey().delete("tir:gateway:t1")


# ── people ───────────────────────────────────────────────────────────────────────────────────────
def test_a_number_set_by_hand_holds_for_the_delay(gateways: Gateways) -> None:
    endpoint = active(gateways, 2)
    gateways.pass_time(DELAY - 10, endpoint)
    endpoint.scale(5, by=make.user("alice"), at=gateways.steering.clock())
    gateways.pass_time(DELAY - 4, endpoint)
    assert endpoint.wanted == 5
    gateways.pass_time(DELAY + 60, endpoint)
    assert endpoint.wanted == 1


def test_a_wish_that_came_in_between_is_not_written_over(gateways: Gateways) -> None:
    endpoint = active(gateways)
    stale = endpoint.generation
    endpoint.scale(2, by=None)
    assert endpoint.autoscale(7, why="wanted 7", generation=stale) is False
    endpoint.refresh_from_db()
    assert (endpoint.wanted, decisions(endpoint)) == (2, [])


def test_who_wished_what_stays_as_it_was(gateways: Gateways) -> None:
    endpoint = active(gateways)
    endpoint.scale(2, by=User.objects.get(email="alice@example.com"), at=gateways.steering.clock())
    wished = endpoint.wished_at, endpoint.wished_by
    gateways.load[endpoint.pk] = 60
    gateways.pass_time(20, endpoint)
    assert endpoint.wanted == 6
    assert (endpoint.wished_at, endpoint.wished_by) == wished


def test_an_emergency_is_taken_back_only_after_its_time(gateways: Gateways) -> None:
    endpoint = active(gateways)
    endpoint.emergency_scale(3, minutes=15, by=None, at=gateways.steering.clock())
    gateways.pass_time(DELAY + 40, endpoint)
    assert (endpoint.wanted, decisions(endpoint)) == (3, [])
    gateways.steering.turn(seconds=15 * 60 - DELAY - 60)
    gateways.pass_time(18, endpoint)
    assert (endpoint.wanted, decisions(endpoint)) == (3, [])
    gateways.pass_time(DELAY + 40, endpoint)
    assert endpoint.wanted == 1


def test_an_emergency_that_is_not_enough_is_added_to(gateways: Gateways) -> None:
    endpoint = active(gateways)
    endpoint.emergency_scale(3, by=None, at=gateways.steering.clock())
    gateways.load[endpoint.pk] = 55
    gateways.pass_time(20, endpoint)
    assert endpoint.wanted == 6


def test_warm_spares_are_kept_above_the_load_and_with_none(gateways: Gateways) -> None:
    endpoint = active(gateways, warm_spare=2)
    gateways.pass_time(10, endpoint)
    assert endpoint.wanted == 2
    gateways.load[endpoint.pk] = 27
    gateways.pass_time(20, endpoint)
    assert endpoint.wanted == 5
    assert decisions(endpoint)[-1].message == "wanted 5: 27 in flight / target 10 + 2 spare; 2 ready"
    gateways.load[endpoint.pk] = 0
    gateways.pass_time(DELAY + 90, endpoint)
    assert endpoint.wanted == 2


# ── who is left alone ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "columns",
    [
        {"min_instances": 3, "max_instances": 3, "wanted": 3},
        {"desired": "stopped"},
        {"wanted": 0, "min_instances": 0},  # whoever has a caller for it wakes it
        {"serving_revision": None},
    ],
    ids=["min is max", "stopped", "asleep", "never served"],
)
def test_some_are_left_alone(gateways: Gateways, columns: dict[str, Any]) -> None:
    endpoint = make.endpoint(ready=2, **columns)
    wanted = endpoint.wanted
    gateways.load[endpoint.pk] = 90
    gateways.pass_time(20)
    endpoint.refresh_from_db()
    assert (endpoint.wanted, decisions(endpoint)) == (wanted, [])


def test_one_that_was_given_up_is_not_started_again_by_load(gateways: Gateways) -> None:
    endpoint = active(gateways)
    Endpoint.objects.filter(pk=endpoint.pk).update(halted_at=gateways.steering.clock())
    gateways.load[endpoint.pk] = 90
    gateways.pass_time(20)
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.halted_at is None) == (1, False)
    assert endpoint.autoscale(5, why="wanted 5", generation=endpoint.generation) is False


def test_fewer_than_the_minimum_are_raised_to_it(gateways: Gateways) -> None:
    endpoint = active(gateways, min_instances=2)
    gateways.pass_time(4, endpoint)
    assert endpoint.wanted == 2
    assert decisions(endpoint)[0].message == "wanted 2: the minimum is 2"


def test_a_deploy_with_a_smaller_maximum_wants_no_more_than_that() -> None:
    endpoint = make.endpoint(ready=5)
    smaller = make.spec(endpoint.name, scaling=ScalingSpec(min_instances=1, max_instances=3))
    endpoint.deploy(smaller, by=None, with_scaling=True)
    assert (endpoint.wanted, endpoint.max_instances) == (3, 3)
    other = make.endpoint(ready=1)
    always = make.spec(other.name, scaling=ScalingSpec(min_instances=2, max_instances=2))
    other.deploy(always, by=None, with_scaling=True)
    assert other.wanted == 2


# ── CPU and memory ───────────────────────────────────────────────────────────────────────────────
def test_cpu_over_the_threshold_asks_for_one_more(gateways: Gateways) -> None:
    endpoint = active(gateways)
    run_hot(gateways, endpoint)
    assert endpoint.wanted == 2
    assert decisions(endpoint)[0].message.startswith("wanted 2: CPU 90 % and memory 25 % / threshold 80 %, 4 in")


def test_cpu_over_the_threshold_asks_for_nothing_where_the_region_is_full(gateways: Gateways) -> None:
    """One that serves as many as were wanted is not called short of instances for being busy."""
    endpoint = active(gateways)
    full = endpoint.region.capacity | {"cpu_millis_free": 1999}
    Region.objects.filter(pk=endpoint.region_id).update(capacity=full)
    run_hot(gateways, endpoint)
    assert (endpoint.wanted, endpoint.status) == (1, "active")


def test_a_region_that_said_nothing_yet_holds_nobody_back(gateways: Gateways) -> None:
    endpoint = active(gateways)
    Region.objects.filter(pk=endpoint.region_id).update(capacity={})
    run_hot(gateways, endpoint)
    assert endpoint.wanted == 2


def run_hot(gateways: Gateways, endpoint: Endpoint) -> None:
    """A minute with four requests in flight and CPU at 90 % of a machine of two cores."""
    gateways.load[endpoint.pk] = 4
    for _ in range(30):
        for one in endpoint.instances.live():
            Sample.objects.update_or_create(
                instance=one, at=slot_of(gateways.steering.clock()),
                defaults={"endpoint": endpoint, "cpu_millis": 1800, "memory_bytes": 1 << 30},
            )  # fmt: skip
        gateways.pass_time(2, endpoint)


# ── what it costs ────────────────────────────────────────────────────────────────────────────────
def test_many_cost_the_same_queries_as_few_and_no_write(gateways: Gateways) -> None:
    counts = []
    for more in (1, 20):
        for _ in range(more):
            gateways.load[make.endpoint(ready=2).pk] = 15
        gateways.pass_time(8)
        told: Callable[[], object] = partial(list, gateways.ticks() or ())
        with pytest.MonkeyPatch.context() as patch, CaptureQueriesContext(connection) as captured:
            patch.setattr(facts, "ticks", told)
            gateways.steering.turn(seconds=2)
            assert scaler.autoscale(at=gateways.steering.clock()) == []
        assert all(one["sql"].startswith("SELECT") for one in captured.captured_queries)
        counts.append(len(captured))
    assert counts == [4, 4]


def test_idle_ones_at_their_minimum_cost_one_query(gateways: Gateways) -> None:
    for _ in range(5):
        make.endpoint(ready=1)
    with CaptureQueriesContext(connection) as captured:
        scaler.autoscale(at=gateways.steering.clock())
    assert len(captured) == 1


def test_a_broken_valkey_pauses_it(gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = active(gateways, 4)

    class Broken:
        def get(self, *_: object) -> None:
            raise OSError("gone")

    monkeypatch.setattr(bell, "valkey", Broken)
    assert scaler.autoscale(at=gateways.steering.clock() + timedelta(hours=1)) == []
    endpoint.refresh_from_db()
    assert endpoint.wanted == 4
