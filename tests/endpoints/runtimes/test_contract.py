"""What every runtime must do, asked of the real one and of the fakes that stand in for it."""

from collections.abc import Iterator

import pytest

from endpoints.runtimes.base import Phase, Rejected, Runtime
from tests.endpoints.runtimes.conftest import settled, the_one, workload
from tests.runtimes import InstantRuntime


@pytest.fixture(params=["process", "instant"])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    if request.param == "process":
        yield request.getfixturevalue("process")
    else:
        yield InstantRuntime()


def test_nothing_runs_before_anything_was_asked(runtime: Runtime) -> None:
    assert runtime.observe() == {}
    assert runtime.usage() == {}
    assert runtime.logs("endpoint-7-r1-aaaaa", 0, 10) == []


def test_as_many_as_asked_run_and_say_where(runtime: Runtime) -> None:
    runtime.apply(workload(2))
    for name, one in settled(runtime, "running", 2).items():
        assert name.startswith("endpoint-7-r1-")
        assert one.address is not None
        assert one.address.startswith("http://127.0.0.1:")
        assert (one.owner, one.revision, one.exit_code, one.message) == ("endpoint-7", 1, None, "")
        assert one.finished_at is None


def test_an_instance_is_seen_as_soon_as_it_was_asked_for(runtime: Runtime) -> None:
    runtime.apply(workload(3))
    assert len(runtime.observe("endpoint-7")) == 3


def test_asking_twice_changes_nothing(runtime: Runtime) -> None:
    runtime.apply(workload(2))
    first = settled(runtime, "running", 2)
    runtime.apply(workload(2))
    assert runtime.observe() == first


def test_fewer_means_the_newest_go(runtime: Runtime) -> None:
    runtime.apply(workload(1))
    oldest = the_one(runtime, "running").name
    runtime.apply(workload(3))
    settled(runtime, "running", 3)
    runtime.apply(workload(1))
    assert set(settled(runtime, "running", 1)) == {oldest}


def test_a_retired_instance_goes_and_a_new_one_takes_its_place(runtime: Runtime) -> None:
    runtime.apply(workload(2))
    before = settled(runtime, "running", 2)
    victim = sorted(before)[0]
    runtime.apply(workload(2, retire=(victim,)))
    settled(runtime, "exited", 1)
    after = settled(runtime, "running", 2)
    assert victim not in after
    assert len(set(before) & set(after)) == 1


def test_retiring_one_and_wanting_one_less_keeps_the_other(runtime: Runtime) -> None:
    runtime.apply(workload(2))
    victim, keeper = sorted(settled(runtime, "running", 2))
    runtime.apply(workload(1, retire=(victim,)))
    settled(runtime, "exited", 1)
    assert set(settled(runtime, "running", 1)) == {keeper}


def test_a_name_nobody_knows_can_be_retired(runtime: Runtime) -> None:
    runtime.apply(workload(1, retire=("endpoint-7-r1-nosuch",)))
    settled(runtime, "running", 1)


def test_another_revision_is_left_alone(runtime: Runtime) -> None:
    runtime.apply(workload(1))
    runtime.apply(workload(1, revision=2))
    found = settled(runtime, "running", 2)
    assert sorted(one.revision for one in found.values()) == [1, 2]


def test_an_old_revision_is_retired_by_name(runtime: Runtime) -> None:
    runtime.apply(workload(1))
    old = the_one(runtime, "running").name
    runtime.apply(workload(1, revision=2, retire=(old,)))
    settled(runtime, "exited", 1)
    assert the_one(runtime, "running").revision == 2


def test_another_owner_is_neither_counted_nor_shown(runtime: Runtime) -> None:
    runtime.apply(workload(1, owner="endpoint-8"))
    runtime.apply(workload(1))
    settled(runtime, "running", 2)
    assert [one.owner for one in runtime.observe("endpoint-8").values()] == ["endpoint-8"]
    assert runtime.observe("endpoint-9") == {}


def test_zero_needs_no_command_and_ends_all(runtime: Runtime) -> None:
    runtime.apply(workload(2))
    settled(runtime, "running", 2)
    runtime.apply(workload(0, command=None))
    for one in settled(runtime, "exited", 2).values():
        assert one.exit_code == 0
        assert one.message == "stopped when asked"
        assert one.finished_at is not None
        assert one.finished_at >= one.started_at


def test_running_nothing_is_rejected_in_words(runtime: Runtime) -> None:
    with pytest.raises(Rejected, match="nothing to run"):
        runtime.apply(workload(1, command=None))
    assert runtime.observe() == {}


def test_an_ended_instance_is_replaced_at_the_next_ask(runtime: Runtime) -> None:
    runtime.apply(workload(1))
    first = the_one(runtime, "running").name
    runtime.apply(workload(0))
    settled(runtime, "exited", 1)
    runtime.apply(workload(1))
    assert the_one(runtime, "running").name != first


def test_forgetting_drops_an_ended_instance_for_good(runtime: Runtime) -> None:
    runtime.apply(workload(1))
    settled(runtime, "running", 1)
    runtime.apply(workload(0))
    name = the_one(runtime, "exited").name
    runtime.forget(name)
    assert runtime.observe() == {}
    assert runtime.logs(name, 0, 10) == []
    runtime.forget(name)


def test_a_live_instance_is_not_forgotten(runtime: Runtime) -> None:
    runtime.apply(workload(1))
    name = the_one(runtime, "running").name
    runtime.forget(name)
    assert runtime.observe()[name].phase == Phase.RUNNING


def test_usage_names_the_living_only(runtime: Runtime) -> None:
    runtime.apply(workload(1))
    name = the_one(runtime, "running").name
    assert set(runtime.usage()) == {name}
    assert runtime.usage("endpoint-8") == {}
    runtime.apply(workload(0))
    settled(runtime, "exited", 1)
    assert runtime.usage() == {}


def test_capacity_never_offers_more_than_there_is(runtime: Runtime) -> None:
    found = runtime.capacity()
    assert 0 <= found.cpu_millis_free <= found.cpu_millis
    assert 0 <= found.memory_bytes_free <= found.memory_bytes
    assert found.gpus_free == found.gpus == 0
    assert found.reason
