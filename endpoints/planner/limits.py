"""Deadlines, budgets and paces of the controller, in one place."""

from __future__ import annotations

from datetime import timedelta

from endpoints.models.deployment import PhaseKind

SLOWEST_LINK = 5 * 1024**2  # bytes a second that a model must come in with at the least

CRASH_WINDOW = timedelta(minutes=10)
CRASHES_WHILE_DEPLOYING = 3
CRASHES_WHILE_SERVING = 5  # of one instance; see `rollout`
NEVER_MENDS = {64: "BadConfiguration", 65: "BadModelFile", 72: "EngineMissing"}  # exit codes of `serving`

UNREADY_AFTER = 3  # failed probes in a row
UNREADY_DEADLINE = timedelta(seconds=60)  # an instance that stays silent this long is replaced
SHORT_AFTER = timedelta(seconds=30)  # without room for all that are wanted, a deployment goes on with fewer
DRAIN_GRACE = timedelta(seconds=3)  # until every gateway knows and has said what it still carries
DRAIN_DEADLINE = timedelta(seconds=60)
LONGEST_ANSWER = timedelta(minutes=30)  # of a surplus instance's drain, while a gateway says that it carries one
DELETE_DEADLINE = timedelta(seconds=10)
SURGE = 1

CALM = timedelta(seconds=1)  # pace while something drains or waits
YOUNG = timedelta(seconds=30)
BRISK = timedelta(milliseconds=250)  # pace while something young is under way: a ring or a first answer is quicker


def loading_deadline(model_bytes: int, startup_seconds: int = 0) -> timedelta:
    """Ten minutes, or what was asked for, and what the bytes need on a slow link."""
    least = timedelta(seconds=startup_seconds) if startup_seconds else PhaseKind.LOADING.deadline
    return least + timedelta(seconds=model_bytes / SLOWEST_LINK)


def start_deadline(model_bytes: int, startup_seconds: int = 0) -> timedelta:
    """How long an instance may take from its start until it serves."""
    return loading_deadline(model_bytes, startup_seconds) + PhaseKind.HEALTH.deadline


def pace(age: timedelta) -> timedelta:
    """How soon to look again at something that began this long ago."""
    return CALM if age > YOUNG else BRISK


def back_off(failures: int) -> timedelta:
    """The wait before the next start: none after the first crash, then 1, 2, 4… up to 60 s."""
    return timedelta(seconds=min(60, 2 ** (failures - 2))) if failures > 1 else timedelta(0)
