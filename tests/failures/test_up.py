"""`up` and its instances: they outlive it, are adopted by the next one, and end when that is asked for."""

from __future__ import annotations

import httpx
import pytest

from tests.failures.hurt import MAIN, Hurt
from tests.failures.traffic import ASK
from tests.wait import until

pytestmark = pytest.mark.model


def engines(hurt: Hurt) -> dict[str, tuple[int, ...]]:
    return {name: one.engines for name, one in hurt.processes_of(MAIN).items()}


def test_instances_outlive_up_are_adopted_by_the_next_and_end_with_stop_all(hurt: Hurt) -> None:
    before = engines(hurt)
    addresses = [str(seen.address) for seen in hurt.running(MAIN).values()]
    owner, rows = hurt.owner(MAIN), {str(row["name"]) for row in hurt.rows("live", endpoint=MAIN)}
    assert hurt.house.end() == 0, hurt.house.said
    for address in addresses:  # nobody steers them, and they serve
        answer = httpx.post(f"{address}/v1/chat/completions", json=ASK, trust_env=False, timeout=30)
        assert answer.status_code == 200

    hurt.house.start("manage.py", "up", "--no-input")
    hurt.house.wait_ready()
    until(lambda: hurt.is_whole(MAIN, 2), seconds=60, every=0.1, what="both to be adopted")
    assert hurt.call(MAIN, "chat/completions", ASK).status_code == 200
    assert engines(hurt) == before
    assert {str(row["name"]) for row in hurt.rows("live", endpoint=MAIN)} == rows

    done = hurt.house.run("manage.py", "up", "--stop-all", "--no-input")
    assert (done.returncode, done.stdout) == (0, "Ended the console and 2 instances.\n"), done.stderr
    assert not [seen for seen in hurt.runtime.observe(owner).values() if seen.phase != "exited"]
    assert hurt.house.process
    assert hurt.house.process.wait(30) == 0

    hurt.house.start("manage.py", "up", "--no-input")  # and what was ended on purpose is no crash
    hurt.house.wait_ready()
    until(lambda: hurt.is_whole(MAIN, 2), seconds=60, every=0.1, what="two new instances")
    ends = [row for row in hurt.rows("instances", endpoint=MAIN) if row["name"] in rows]
    assert {(row["state"], row["reason"]) for row in ends} == {("stopped", "Asked")}, ends
