"""`up --stop-all` ends instances too, whether or not an `up` runs."""

from datetime import UTC, datetime

import pytest

from endpoints.runtimes.base import Observed, Phase, Unavailable, Workload
from tests.up.house import House
from tests.up.test_launch import gone
from tir_console.up import stop_all
from tir_console.up.trouble import Trouble


class Three:
    """A runtime with three instances of two owners; `deaf` ones do not end."""

    def __init__(self, *, deaf: bool = False, away: bool = False) -> None:
        self.deaf = deaf
        self.away = away
        self.live = {("endpoint-1", 1): 2, ("endpoint-2", 4): 1}

    def observe(self, owner: str | None = None) -> dict[str, Observed]:
        if self.away:
            raise Unavailable("no answer")
        seen = [
            Observed(
                f"{of}-r{revision}-{number}", of, revision, Phase.RUNNING, None, None, "", datetime.now(UTC), None
            )
            for (of, revision), count in self.live.items()
            for number in range(count)
        ]
        return {one.name: one for one in seen}

    def apply(self, workload: Workload) -> None:
        assert workload.replicas == 0
        if not self.deaf:
            del self.live[workload.owner, workload.revision]


def test_every_revision_of_every_owner_ends() -> None:
    runtime = Three()
    assert stop_all.end_instances(runtime) == 3  # type: ignore[arg-type]
    assert not runtime.live


def test_what_does_not_end_is_named() -> None:
    with pytest.raises(Trouble, match=r"do not end: endpoint-1-r1-0, endpoint-1-r1-1, endpoint-2-r4-0"):
        stop_all.end_instances(Three(deaf=True), seconds=0)  # type: ignore[arg-type]


def test_a_runtime_that_does_not_answer_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(Trouble, match="can't be looked at: no answer"):
        stop_all.end_instances(Three(away=True))  # type: ignore[arg-type]


def test_works_when_nothing_runs(house: House) -> None:
    done = house.run("manage.py", "up", "--stop-all", "--no-input")
    assert (done.returncode, done.stdout) == (0, "Ended the console and 0 instances.\n"), done.stderr


def test_ends_the_up_that_runs(house: House) -> None:
    house.stage()
    house.wait_ready()
    pids = house.processes()
    done = house.run("manage.py", "up", "--stop-all", "--no-input")
    assert done.returncode == 0, done.stderr
    assert house.process
    assert house.process.wait(180) == 0
    assert all(gone(pid) for pid in pids.values())
