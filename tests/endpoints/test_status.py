"""The one word for an endpoint's state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from endpoints.status import TONES, Seen, Status, status_of, worst

SERVING = Seen(
    desired="running",
    wanted=2,
    deploying=False,
    served=True,
    halted=False,
    live=2,
    ready=2,
    short=False,
    lost=False,
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Status.ACTIVE),
        ({"live": 3, "ready": 3}, Status.ACTIVE),
        # fewer than wanted
        ({"ready": 1}, Status.SCALING),
        ({"ready": 1, "lost": True}, Status.DEGRADED),
        ({"ready": 1, "short": True}, Status.DEGRADED),
        ({"ready": 1, "halted": True}, Status.DEGRADED),
        ({"ready": 0}, Status.DEGRADED),
        ({"ready": 0, "waking": True}, Status.SCALING),
        ({"ready": 0, "waking": True, "lost": True}, Status.DEGRADED),
        ({"ready": 0, "waking": True, "short": True}, Status.DEGRADED),
        ({"ready": 0, "halted": True}, Status.FAILED),
        # nothing wanted
        ({"wanted": 0, "live": 0, "ready": 0}, Status.IDLE),
        ({"wanted": 0, "live": 1, "ready": 0}, Status.SCALING),
        # deploying
        ({"deploying": True, "served": False, "ready": 0}, Status.DEPLOYING),
        ({"deploying": True, "ready": 0}, Status.DEPLOYING),
        ({"deploying": True}, Status.UPDATING),
        ({"deploying": True, "lost": True}, Status.DEGRADED),
        ({"served": False, "live": 0, "ready": 0}, Status.FAILED),
        # stopping and deleting, whatever else is true
        ({"desired": "stopped"}, Status.STOPPING),
        ({"desired": "stopped", "live": 0, "ready": 0, "halted": True}, Status.STOPPED),
        ({"desired": "deleted", "deploying": True}, Status.DELETING),
        ({"desired": "deleted", "live": 0, "ready": 0}, Status.DELETED),
    ],
)
def test_each_word_means_one_thing(changes: dict[str, Any], expected: Status) -> None:
    assert status_of(replace(SERVING, **changes)) == expected


def test_a_failed_update_long_ago_does_not_make_scaled_to_zero_look_failed() -> None:
    assert status_of(replace(SERVING, wanted=0, live=0, ready=0)) == Status.IDLE


def test_every_status_has_a_tone_and_a_label() -> None:
    assert set(TONES) == set(Status)
    assert all(status.tone and status.label for status in Status)


def test_a_summary_speaks_of_the_worst_first() -> None:
    assert worst([Status.ACTIVE, Status.FAILED, Status.SCALING]) == Status.FAILED
    assert worst([Status.STOPPED]) == Status.STOPPED
    assert worst([]) is None
