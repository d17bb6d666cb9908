"""What every runtime must do, whatever its place is made of.

A runtime's own test file subclasses `Contract` as `Test…` and gives the fixture `place`. Where a place keeps
nothing of what ended, as a cluster does that cleans up at once, gone is as good as ended.
"""

import threading
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pytest

from endpoints.runtimes.base import LogLine, Observed, Phase, Rejected, Runtime, Unavailable, Workload
from tests.wait import until

OWNER = "endpoint-7"
HELLO = "hello from the engine"
LAST_WORDS = "the engine gave up"
NOBODY = "endpoint-7-r1-aaaaa"


class Place(Protocol):
    """A place where instances run, and what a test may do there behind the runtime's back."""

    keeps_the_ended: bool

    @property
    def runtime(self) -> Runtime:
        """The runtime under test."""

    def again(self) -> Runtime:
        """The runtime that a restarted console uses."""

    def elsewhere(self) -> Runtime:
        """The runtime of another installation at the same place."""

    def workload(self, replicas: int = 1, *, behave: str = "serve", **changes: Any) -> Workload:
        """Instances of OWNER that say HELLO and then `serve`; `crash` with code 1 and LAST_WORDS; are `slow` and
        get no address until `let_go`; are `hungry` for more memory than they may have."""

    def kill(self, name: str) -> None:
        """kill -9 of what runs in this instance."""

    def vanish(self, name: str) -> None:
        """Somebody else removes this instance, without a trace."""

    def let_go(self) -> None:
        """The slow ones go on."""

    def outage(self) -> AbstractContextManager[None]:
        """The place can't be asked meanwhile; what runs there goes on running."""


def settled(runtime: Runtime, phase: str, number: int = 1, owner: str | None = None) -> dict[str, Observed]:
    """The instances in this phase, once there are this many of them."""
    everything: dict[str, Observed] = {}

    def look() -> dict[str, Observed] | None:
        nonlocal everything
        everything = runtime.observe(owner)
        found = {name: one for name, one in everything.items() if one.phase == phase}
        return found if len(found) == number else None

    def what() -> str:
        ends = {name: runtime.logs(name, -3, 3) for name in everything}
        return f"{number} {phase}; there are {everything}, which said last {ends}"

    return until(look, what=what)


def the_one(runtime: Runtime, phase: str) -> Observed:
    return next(iter(settled(runtime, phase).values()))


def ended(runtime: Runtime, *names: str) -> None:
    """Return once none of these runs any more."""

    def look() -> bool:
        now = runtime.observe()
        return all(name not in now or now[name].phase == Phase.EXITED for name in names)

    # A stop that comes before the process listens for signals is carried out when its grace is over.
    until(look, seconds=90, what=lambda: f"an end of {names}; there are {runtime.observe()}")


def said(runtime: Runtime, name: str, text: str) -> list[LogLine]:
    """Its lines, once this text is among them."""

    def look() -> list[LogLine] | None:
        lines = runtime.logs(name, 0, 50)
        return lines if any(text in line.text for line in lines) else None

    return until(look, what=lambda: f"{text!r} in the log, which is {runtime.logs(name, 0, 50)}")


class Contract:
    """The suite."""

    @pytest.fixture
    def runtime(self, place: Place) -> Runtime:
        return place.runtime

    # ── how many run ────────────────────────────────────────────────────────────────────────────
    def test_nothing_runs_before_anything_was_asked(self, runtime: Runtime) -> None:
        assert runtime.observe() == {}
        assert runtime.usage() == {}
        assert runtime.logs(NOBODY, 0, 10) == []

    def test_as_many_as_asked_run_and_say_where(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(2))
        assert len(runtime.observe(OWNER)) == 2  # at once, before any of them could start
        for name, one in settled(runtime, "running", 2).items():
            assert name.startswith(f"{OWNER}-r1-")
            assert one.address is not None
            assert one.address.startswith("http://")
            assert (one.owner, one.revision, one.exit_code, one.message) == (OWNER, 1, None, "")
            assert one.finished_at is None

    def test_asking_twice_changes_nothing(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(2))
        first = settled(runtime, "running", 2)
        runtime.apply(place.workload(2))
        assert runtime.observe() == first

    def test_two_who_ask_at_once_get_as_many_as_one(self, place: Place) -> None:
        asking = [threading.Thread(target=place.again().apply, args=(place.workload(2),)) for _ in range(3)]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        settled(place.runtime, "running", 2)
        assert len(place.runtime.observe()) == 2

    def test_fewer_means_the_newest_go(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1))
        oldest = the_one(runtime, "running").name
        runtime.apply(place.workload(3))
        settled(runtime, "running", 3)
        runtime.apply(place.workload(1))
        assert set(settled(runtime, "running", 1)) == {oldest}

    def test_a_retired_instance_goes_and_a_new_one_takes_its_place(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(2))
        before = settled(runtime, "running", 2)
        victim = sorted(before)[0]
        runtime.apply(place.workload(2, retire=(victim,)))
        ended(runtime, victim)
        after = settled(runtime, "running", 2)
        assert len(set(before) & set(after)) == 1

    def test_retiring_one_and_wanting_one_less_keeps_the_other(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(2))
        victim, keeper = sorted(settled(runtime, "running", 2))
        runtime.apply(place.workload(1, retire=(victim,)))
        ended(runtime, victim)
        assert set(settled(runtime, "running", 1)) == {keeper}

    def test_a_name_nobody_knows_can_be_retired(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1, retire=("endpoint-7-r1-nosuch",)))
        settled(runtime, "running", 1)

    def test_revisions_stand_side_by_side_until_the_old_one_is_retired_by_name(
        self, place: Place, runtime: Runtime
    ) -> None:
        runtime.apply(place.workload(1))
        old = the_one(runtime, "running").name
        runtime.apply(place.workload(1, revision=2))
        assert sorted(one.revision for one in settled(runtime, "running", 2).values()) == [1, 2]
        runtime.apply(place.workload(1, revision=2, retire=(old,)))
        ended(runtime, old)
        assert the_one(runtime, "running").revision == 2

    def test_another_owner_is_neither_counted_nor_shown(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1, owner="endpoint-8"))
        runtime.apply(place.workload(1))
        settled(runtime, "running", 2)
        assert [one.owner for one in runtime.observe("endpoint-8").values()] == ["endpoint-8"]
        assert runtime.observe("endpoint-9") == {}

    def test_running_nothing_is_rejected_in_words(self, place: Place, runtime: Runtime) -> None:
        with pytest.raises(Rejected, match="nothing to run"):
            runtime.apply(place.workload(1, command=None))
        assert runtime.observe() == {}

    # ── how it ends ─────────────────────────────────────────────────────────────────────────────
    def test_zero_needs_no_command_and_ends_all(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(2))
        names = settled(runtime, "running", 2)
        runtime.apply(place.workload(0, command=None))
        ended(runtime, *names)
        if place.keeps_the_ended:
            for one in settled(runtime, "exited", 2).values():
                assert (one.exit_code, one.message, one.asked) == (0, "stopped when asked", True)
                assert one.finished_at is not None
                assert one.finished_at >= one.started_at

    def test_an_ended_instance_is_replaced_at_the_next_ask(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1))
        first = the_one(runtime, "running").name
        runtime.apply(place.workload(0))
        ended(runtime, first)
        runtime.apply(place.workload(1))
        assert the_one(runtime, "running").name != first

    def test_a_stop_while_it_starts_leaves_nothing_running(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(2))
        names = set(runtime.observe(OWNER))
        runtime.apply(place.workload(0))
        ended(runtime, *names)

    def test_a_crash_shows_its_code_and_its_last_words(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1, behave="crash"))
        one = the_one(runtime, "exited")
        assert one.exit_code == 1
        assert one.message == f"exit code 1: {LAST_WORDS}"
        assert not one.asked
        assert [line.text for line in runtime.logs(one.name, -2, 9)] == [HELLO, LAST_WORDS]

    def test_one_that_was_killed_is_seen_and_replaced(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1))
        name = the_one(runtime, "running").name
        place.kill(name)
        ended(runtime, name)
        if place.keeps_the_ended:
            one = the_one(runtime, "exited")
            assert one.exit_code == 137
            assert one.message.startswith("killed by signal 9")
            assert not one.asked
        runtime.apply(place.workload(1))
        assert the_one(runtime, "running").name != name

    def test_one_that_wants_more_memory_than_it_may_have_ends_and_says_so(
        self, place: Place, runtime: Runtime
    ) -> None:
        runtime.apply(place.workload(1, behave="hungry", memory_bytes=64 << 20))
        one = the_one(runtime, "exited")
        assert "memory" in one.message.lower()
        assert one.exit_code not in {0, None}

    def test_a_vanished_instance_is_simply_gone_and_another_takes_its_place(
        self, place: Place, runtime: Runtime
    ) -> None:
        runtime.apply(place.workload(2))
        victim, keeper = settled(runtime, "running", 2)
        place.vanish(victim)
        until(lambda: set(runtime.observe()) == {keeper}, what=f"{victim} to be gone")
        assert runtime.logs(victim, 0, 10) == []
        runtime.apply(place.workload(2))
        assert keeper in settled(runtime, "running", 2)

    def test_forgetting_drops_an_ended_instance_for_good(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1))
        name = the_one(runtime, "running").name
        runtime.apply(place.workload(0))
        ended(runtime, name)
        runtime.forget(name)
        assert runtime.observe() == {}
        assert runtime.logs(name, 0, 10) == []
        runtime.forget(name)

    def test_a_live_instance_is_not_forgotten(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1))
        name = the_one(runtime, "running").name
        runtime.forget(name)
        assert runtime.observe()[name].phase == Phase.RUNNING

    # ── when it starts ──────────────────────────────────────────────────────────────────────────
    def test_a_slow_start_is_starting_until_it_has_an_address(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1, behave="slow"))
        one = the_one(runtime, "starting")
        assert one.address is None
        place.let_go()
        assert the_one(runtime, "running").name == one.name

    def test_the_doorbell_rings_for_news_and_stays_still_without(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1))
        runtime.wait(OWNER, {}, 30.0)
        seen = settled(runtime, "running", 1)
        runtime.wait(OWNER, seen, 0.01)
        runtime.apply(place.workload(0))
        if place.keeps_the_ended:
            runtime.wait(OWNER, {}, 30.0)
        with place.outage():
            runtime.wait(OWNER, seen, 0.01)

    # ── who looks ───────────────────────────────────────────────────────────────────────────────
    def test_a_restarted_console_adopts_what_the_old_one_started(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(2))
        before = settled(runtime, "running", 2)
        second = place.again()
        second.apply(place.workload(2))
        assert second.observe() == before
        second.apply(place.workload(0))
        ended(second, *before)

    def test_two_installations_at_one_place_never_meet(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1))
        name = the_one(runtime, "running").name
        theirs = place.elsewhere()
        assert theirs.observe() == {}
        assert theirs.usage() == {}
        theirs.apply(place.workload(0, retire=(name,)))
        theirs.forget(name)
        assert set(settled(runtime, "running", 1)) == {name}

    def test_an_outage_is_never_read_as_empty(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1))
        before = settled(runtime, "running", 1)
        with place.outage():
            asked = (
                runtime.observe,
                lambda: runtime.observe(OWNER),
                runtime.usage,
                runtime.capacity,
                lambda: runtime.apply(place.workload(1)),
                lambda: runtime.apply(place.workload(0)),
            )
            for ask in asked:
                with pytest.raises(Unavailable):
                    ask()
        assert runtime.observe() == before

    # ── what it says and uses ───────────────────────────────────────────────────────────────────
    def test_lines_are_numbered_from_one_and_read_on_from_anywhere(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1, behave="crash"))
        one = the_one(runtime, "exited")
        lines = said(runtime, one.name, LAST_WORDS)
        assert [(line.offset, line.text) for line in lines] == [(1, HELLO), (2, LAST_WORDS)]
        assert runtime.logs(one.name, 1, 10) == lines[1:]
        assert runtime.logs(one.name, 2, 10) == []
        assert runtime.logs(one.name, 0, 1) == lines[:1]
        assert runtime.logs(one.name, -1, 10) == lines[1:]
        assert lines[0].at <= lines[1].at

    def test_a_restarted_console_reads_the_same_log(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1))
        name = the_one(runtime, "running").name
        lines = said(runtime, name, HELLO)
        assert place.again().logs(name, 0, 10) == lines
        if place.keeps_the_ended:
            runtime.apply(place.workload(0))
            ended(runtime, name)
            assert place.again().logs(name, 0, 10)[: len(lines)] == lines

    def test_usage_names_the_living_only(self, place: Place, runtime: Runtime) -> None:
        runtime.apply(place.workload(1))
        name = the_one(runtime, "running").name
        assert set(runtime.usage()) == set(runtime.usage(OWNER)) == {name}
        assert runtime.usage("endpoint-8") == {}
        runtime.apply(place.workload(0))
        ended(runtime, name)
        assert runtime.usage() == {}

    def test_capacity_never_offers_more_than_there_is(self, place: Place, runtime: Runtime) -> None:
        found = runtime.capacity()
        assert 0 <= found.cpu_millis_free <= found.cpu_millis
        assert 0 <= found.memory_bytes_free <= found.memory_bytes
        assert 0 <= found.gpus_free <= found.gpus
        assert found.reason

    def test_what_is_promised_is_not_offered_again(self, place: Place, runtime: Runtime) -> None:
        before = runtime.capacity()
        runtime.apply(place.workload(2, cpu_millis=100, memory_bytes=128 << 20))
        names = settled(runtime, "running", 2)
        during = runtime.capacity()
        assert before.cpu_millis_free - during.cpu_millis_free == 200
        assert before.memory_bytes_free - during.memory_bytes_free == 256 << 20
        runtime.apply(place.workload(0))
        ended(runtime, *names)
        after = runtime.capacity()
        assert (after.cpu_millis_free, after.memory_bytes_free) == (
            before.cpu_millis_free,
            before.memory_bytes_free,
        )
