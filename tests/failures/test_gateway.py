"""A gateway that is killed under load: what it answered is on the bill, once."""

from __future__ import annotations

import pytest

from tests.failures.hurt import Hurt
from tests.wait import until

pytestmark = pytest.mark.model


def test_a_killed_gateway_has_counted_exactly_what_it_answered(hurt: Hurt) -> None:
    with hurt.traffic() as traffic:  # which compares, at its end
        for _ in range(2):
            traffic.goes_on(answers=30)
            before = hurt.house.processes()["gateway"]
            hurt.kill("gateway")
            until(lambda old=before: hurt.house.processes()["gateway"] != old, what="a new gateway")  # type: ignore[misc]
            traffic.goes_on(answers=10)
    assert {answer.stream for answer in traffic.whole} == {True, False}
    assert traffic.failed
