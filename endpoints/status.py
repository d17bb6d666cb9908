"""An endpoint's status: one pure function of what is wanted and what was observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import TextChoices


class Desired(TextChoices):
    RUNNING = "running", "Running"
    STOPPED = "stopped", "Stopped"
    DELETED = "deleted", "Deleted"


class Status(TextChoices):
    """Each word means one thing; Scaled to zero, Stopped and Failed are three different things."""

    DEPLOYING = "deploying", "Deploying"
    ACTIVE = "active", "Active"
    UPDATING = "updating", "Updating"
    SCALING = "scaling", "Scaling"
    DEGRADED = "degraded", "Degraded"
    IDLE = "idle", "Scaled to zero"
    FAILED = "failed", "Failed"
    STOPPING = "stopping", "Stopping"
    STOPPED = "stopped", "Stopped"
    DELETING = "deleting", "Deleting"
    DELETED = "deleted", "Deleted"

    @property
    def tone(self) -> str:
        return TONES[self]


TONES = {
    Status.DEPLOYING: "idle",
    Status.ACTIVE: "ok",
    Status.UPDATING: "ok",
    Status.SCALING: "ok",
    Status.DEGRADED: "warn",
    Status.IDLE: "idle",
    Status.FAILED: "bad",
    Status.STOPPING: "idle",
    Status.STOPPED: "idle",
    Status.DELETING: "idle",
    Status.DELETED: "idle",
}


@dataclass(frozen=True)
class Seen:
    """What `status_of` looks at. `ready` of the live instances answer; `lost` are live but ceased to answer
    or ended without being asked to since the endpoint last had all it wants."""

    desired: str
    wanted: int
    deploying: bool  # a deployment is unfinished
    served: bool  # some revision has served
    halted: bool  # the crash budget is spent
    live: int  # instances that have not ended
    ready: int
    short: bool  # the region has no room for what is wanted
    lost: bool  # an instance failed or stopped answering and its replacement isn't ready yet
    waking: bool = False  # none was wanted before, and nothing has been ready since


def status_of(seen: Seen) -> Status:
    """The one word for it."""
    if seen.desired == Desired.DELETED:
        return Status.DELETING if seen.live else Status.DELETED
    if seen.desired == Desired.STOPPED:
        return Status.STOPPING if seen.live else Status.STOPPED
    if seen.deploying:
        return _while_deploying(seen)
    if not seen.served:
        return Status.FAILED
    if seen.ready == 0 and seen.halted:
        return Status.FAILED
    if seen.wanted == 0:
        return Status.IDLE if seen.live == 0 else Status.SCALING
    if seen.ready >= seen.wanted:
        return Status.ACTIVE
    if seen.halted or seen.short or seen.lost or (seen.ready == 0 and not seen.waking):
        return Status.DEGRADED
    return Status.SCALING


def _while_deploying(seen: Seen) -> Status:
    if not seen.served or seen.ready == 0:
        return Status.DEPLOYING
    return Status.DEGRADED if seen.lost else Status.UPDATING


def worst(statuses: Sequence[Status]) -> Status | None:
    """The one a summary should speak of first; None for nothing."""
    order = [Status.FAILED, Status.DEGRADED, Status.DEPLOYING, Status.UPDATING, Status.SCALING, Status.ACTIVE]
    return next((status for status in order if status in statuses), statuses[0] if statuses else None)
