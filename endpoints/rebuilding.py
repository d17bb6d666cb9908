"""What a place has lost that a revision's instances need, as an image or an environment, is brought again."""

from __future__ import annotations

import logging

from django.utils import timezone

from endpoints import bell, settle
from endpoints.models import Endpoint, Revision, Undecryptable
from endpoints.models.event import Severity
from endpoints.phase_work import Cancelled, Clock
from endpoints.regions import runtime_of
from endpoints.runtimes.base import Rejected, Unavailable
from endpoints.status import Desired
from endpoints.workloads import command_of

log = logging.getLogger(__name__)

AT_IT = "tir:rebuilding:"  # and a revision's id: one worker at a time
QUIET = 120  # seconds without a word after which another worker tries


def rebuild(revision_id: int, *, clock: Clock = timezone.now) -> bool:
    """Have the revision's region prepare again what it needs. False if that is for another time.

    The endpoint halts if it can't be had any more; what may pass is tried again after a while.
    """
    wanted = Revision.objects.filter(pk=revision_id, endpoint__desired=Desired.RUNNING, endpoint__deleted_at=None)
    revision = wanted.select_related("endpoint__project", "endpoint__region").first()
    if revision is None or not bell.valkey().set(f"{AT_IT}{revision_id}", 1, nx=True, ex=QUIET):
        return False
    endpoint = revision.endpoint
    _say(endpoint, "endpoint.rebuilding", "What its instances run is gone from its region, and is brought again.")
    try:
        said = _prepare(revision)
    except Unavailable as problem:
        log.warning("%s: %s", endpoint, problem)
        return False
    except (Rejected, Undecryptable) as problem:
        settle.reject(endpoint, str(problem), clock())
    except Cancelled:
        log.info("Nobody waits for %s any more", revision)
    else:
        _say(endpoint, "endpoint.rebuilt", said)
    bell.valkey().delete(f"{AT_IT}{revision_id}")
    bell.call_controller(endpoint.pk)
    return True


def _prepare(revision: Revision) -> str:
    endpoint, runtime = revision.endpoint, runtime_of(revision.endpoint.region)

    def report(_: str) -> None:
        bell.valkey().expire(f"{AT_IT}{revision.pk}", QUIET)
        if not Endpoint.objects.living().filter(pk=endpoint.pk, desired=Desired.RUNNING).exists():
            raise Cancelled

    return runtime.prepare(command_of(endpoint, revision, fetches=runtime.fetches), report)


def _say(endpoint: Endpoint, kind: str, message: str) -> None:
    """Once, however often it has to be tried."""
    if endpoint.events.order_by("-pk").values_list("kind", flat=True).first() != kind:
        bad = kind == "endpoint.rebuilding"
        endpoint.record(kind, message=message, severity=Severity.WARN if bad else Severity.OK)
