"""What the slow steps of a deployment share: taking a phase up, telling how far it is, and closing it.

Each step may run twice or be cut off: the phase's row says how far it came, `Phase.end` lets one run close it, and
the lease that a worker renews tells the planner when to wake another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import DatabaseError, connection, transaction

from endpoints import bell
from endpoints.models import Phase
from endpoints.models.deployment import DeploymentState, PhaseKind, PhaseState
from endpoints.models.event import Severity

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=15)
REPORT_EVERY = 0.5  # seconds between two written progresses
LOG_LINES = 400  # kept of what a step says
LINE_LENGTH = 500
Clock = Callable[[], datetime]


class Cancelled(Exception):
    """The phase was closed while we worked on it."""


class Report:
    """Writes a step's progress and log, renews its lease, and stops it when its phase was closed."""

    def __init__(self, phase: Phase, clock: Clock) -> None:
        self.phase, self.clock = phase, clock
        self.written_at = 0.0
        self.last: tuple[int, int] | None = None
        self.lines: deque[str] = deque(maxlen=LOG_LINES)

    def progress(self, done: int, total: int) -> None:
        self.last = (done, total)
        self._now_and_then(at_once=done >= total)

    def line(self, text: str) -> None:
        if text:
            self.lines.append(text[:LINE_LENGTH].replace("\0", "�"))
        self._now_and_then()

    def hold(self, time: timedelta) -> None:
        """Keep the phase for so long without another word."""
        self._write(LEASE + time)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Keep the phase meanwhile, though the step says nothing for long, as an installer at a large file."""
        over = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(over,), name=f"phase-{self.phase.pk}", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()

    def _keep(self, over: threading.Event) -> None:
        try:
            while not over.wait(LEASE.total_seconds() / 3):
                running = Phase.objects.filter(pk=self.phase.pk, state=PhaseState.RUNNING)
                running.update(lease_until=self.clock() + LEASE)
        except DatabaseError as problem:
            log.warning("The lease of phase %s was not renewed: %s", self.phase.pk, problem)
        finally:
            connection.close()

    def finish(self) -> None:
        if self.last or self.lines:
            self._write()

    def _now_and_then(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self.written_at >= REPORT_EVERY:
            self.written_at = now
            self._write()

    def _write(self, lease: timedelta = LEASE) -> None:
        changes: dict[str, object] = {"lease_until": self.clock() + lease}
        if self.last:
            changes |= {"bytes_done": self.last[0], "bytes_total": self.last[1]}
        if self.lines:
            changes |= {"log": "\n".join(self.lines), "message": self.lines[-1]}
        if not Phase.objects.filter(pk=self.phase.pk, state=PhaseState.RUNNING).update(**changes):
            raise Cancelled
        endpoint = self.phase.deployment.revision.endpoint
        bell.ring_pages(endpoint.project_id, endpoint.pk, ("timeline",))


def claim(deployment_id: int, kind: PhaseKind, at: datetime) -> Phase | None:
    """The phase, if it is still to be worked on, with a lease that tells others so."""
    open_phase = Phase.objects.filter(
        deployment=deployment_id,
        deployment__state=DeploymentState.RUNNING,
        kind=kind,
        state=PhaseState.RUNNING,
    )
    if not open_phase.update(lease_until=at + LEASE):
        return None
    return open_phase.select_related(
        "deployment__revision__endpoint__project",
        "deployment__revision__endpoint__region",
        "deployment__revision__instance_type",
    ).first()


def fail(phase: Phase, reason: str, message: str, at: datetime, *, passing: bool = False) -> None:
    """Close the phase, or leave it to be tried again until its deadline when the trouble may pass."""
    if passing and (phase.deadline is None or at + LEASE < phase.deadline):
        Phase.objects.filter(pk=phase.pk, state=PhaseState.RUNNING).update(
            reason=reason, message=f"{message} Trying again.", lease_until=at + LEASE / 3
        )
        return
    if close(phase, PhaseState.FAILED, at, message, reason):
        bell.call_controller(phase.deployment.endpoint_id)


@transaction.atomic
def close(phase: Phase, state: PhaseState, at: datetime, message: str, reason: str = "") -> bool:
    """End the phase, with its event; False if somebody else ended it."""
    if not phase.end(state, at=at, reason=reason, message=message):
        return False
    failed = state == PhaseState.FAILED
    took = f" ({(at - phase.started_at).total_seconds():.1f} s)" if phase.started_at and not failed else ""
    endpoint = phase.deployment.revision.endpoint
    endpoint.record(
        "phase.failed" if failed else "phase.ended",
        at=at,
        message=f"{phase.get_kind_display()}: {message}{took}",
        severity=Severity.BAD if failed else Severity.OK,
        reason=reason,
        after=phase.kind,
    )
    bell.ring_pages(endpoint.project_id, endpoint.pk, ("timeline", "events"))
    return True
