"""Valkey or PostgreSQL away for a while, under traffic: calls go on, nothing is lost, and the truth comes back."""

from __future__ import annotations

import time

import pytest

from tests.failures.hurt import MAIN, Hurt
from tests.failures.listener import Listener
from tests.failures.traffic import Traffic, unexcused
from tests.wait import until

pytestmark = pytest.mark.model

AWAY = 20.0  # seconds
TRUE_AGAIN = 60.0  # seconds after which status, pages and instances are right again, beside other tests
PATH = f"/ws/projects/demo/endpoints/{MAIN}/"


@pytest.mark.parametrize("service", ["valkey", "postgres"])
def test_a_service_that_hangs_is_survived_and_caught_up_with(hurt: Hurt, service: str) -> None:
    with Listener(hurt.house.console, PATH, hurt.cookie()) as page, hurt.traffic() as traffic:
        until(lambda: page.ticks_since(0) >= 2, what="ticks before the outage")
        victim = sorted(hurt.running(MAIN))[0]
        with hurt.held(hurt.house.processes()[service], family=True):
            left = time.monotonic()
            traffic.goes_on(answers=8, seconds=AWAY / 2)
            kill = hurt.kill_instance(victim)  # which nobody can write down now
            traffic.goes_on(answers=8, seconds=AWAY / 2)
            until(lambda: time.monotonic() > left + AWAY, seconds=AWAY, every=0.2)
        back = time.monotonic()
        comes_true(hurt, page, traffic, victim, back)
        assert not unexcused(traffic, kill), traffic.summary()
        assert traffic.longest_silence(left, back) < AWAY / 2


@pytest.mark.parametrize("service", ["valkey", "postgres"])
def test_a_service_that_dies_is_started_again_and_found_again(hurt: Hurt, service: str) -> None:
    with Listener(hurt.house.console, PATH, hurt.cookie()) as page, hurt.traffic() as traffic:
        until(lambda: page.ticks_since(0) >= 2, what="ticks before the death")
        victim = sorted(hurt.running(MAIN))[0]
        before = hurt.house.processes()[service]
        hurt.kill(service)
        kill = hurt.kill_instance(victim)
        until(lambda: hurt.house.processes()[service] != before, what=f"another {service}")
        comes_true(hurt, page, traffic, victim, time.monotonic())
        assert not unexcused(traffic, kill), traffic.summary()


def comes_true(hurt: Hurt, page: Listener, traffic: Traffic, victim: str, back: float) -> None:
    """From `back` on: the victim is missed and replaced, status and pages say so, and calls go on."""

    def restored() -> bool:
        return hurt.is_whole(MAIN, 2) and victim not in hurt.running(MAIN)

    until(
        restored, seconds=max(1.0, back + TRUE_AGAIN - time.monotonic()), every=0.1, what="the truth to come back"
    )
    assert any(event["instance"] == victim and event["kind"] == "instance.failed" for event in hurt.events(MAIN))
    seconds = max(1.0, back + TRUE_AGAIN - time.monotonic())
    until(lambda: page.ticks_since(back + 1) >= 2, seconds=seconds, what=f"ticks again; breaks: {page.breaks}")
    traffic.goes_on(answers=8)
