"""The slow step between validation and the first instance: its image is pulled, its environment is built."""

from __future__ import annotations

import logging

from django.utils import timezone

from endpoints import bell
from endpoints.models import Undecryptable
from endpoints.models.deployment import PhaseKind, PhaseState
from endpoints.phase_work import Cancelled, Clock, Report, claim, close, fail
from endpoints.regions import runtime_of
from endpoints.runtimes.base import Rejected, Unavailable
from endpoints.workloads import command_of

log = logging.getLogger(__name__)


def build(deployment_id: int, *, clock: Clock = timezone.now) -> bool:
    """Have the region prepare what its instances need, with its lines in the phase. True once that is there."""
    phase = claim(deployment_id, PhaseKind.BUILD, clock())
    if phase is None:
        return False
    revision, report = phase.deployment.revision, Report(phase, clock)
    runtime = runtime_of(revision.endpoint.region)
    try:
        command = command_of(revision.endpoint, revision, fetches=runtime.fetches)
        with report.alive():
            said = runtime.prepare(command, report.line)
        report.finish()
    except Cancelled:
        log.info("Building for %s was cancelled", revision)
        return False
    except (Rejected, Undecryptable) as problem:
        fail(phase, "BuildFailed", str(problem), clock())
        return False
    except Unavailable as problem:
        fail(phase, "BuildUnavailable", f"{problem}.", clock(), passing=True)
        return False
    if close(phase, PhaseState.DONE, clock(), said):
        bell.call_controller(revision.endpoint_id)
    return True
