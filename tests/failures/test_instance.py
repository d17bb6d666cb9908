"""An instance that is killed under load: nobody but its own callers notices, and it is replaced."""

from __future__ import annotations

import time

import pytest

from tests.failures.hurt import MAIN, Hurt
from tests.failures.traffic import unexcused
from tests.wait import until

pytestmark = pytest.mark.model


def test_a_killed_instance_is_replaced_and_only_its_own_requests_fail(hurt: Hurt) -> None:
    with hurt.traffic() as traffic:
        victim, other = sorted(hurt.running(MAIN))
        seen: list[str] = []
        kill = hurt.kill_instance(victim)

        def replaced() -> bool:
            seen.append(hurt.status(MAIN))
            return hurt.is_whole(MAIN, 2) and victim not in hurt.running(MAIN)

        until(replaced, seconds=60, every=0.05, what="the instance to be replaced")
        took = time.monotonic() - kill[1]
    assert took < 30
    assert other in hurt.running(MAIN)
    assert not unexcused(traffic, kill), traffic.summary()
    assert "degraded" in seen
    ends = [event for event in hurt.events(MAIN) if event["kind"] == "instance.failed"]
    (why,) = [event for event in ends if event["instance"] == victim]
    assert why["reason"] == "Killed"
    assert "SIGKILL" in why["message"]
