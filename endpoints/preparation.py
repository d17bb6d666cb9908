"""The slow steps of a deployment: looking at the model before anything is started, and fetching it.

Each may run twice or be cut off: the phase's row says how far it came, `Phase.end` lets one run close it,
and the lease that a worker renews tells the planner when to wake another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from endpoints import bell
from endpoints.gguf import GGUFFacts
from endpoints.memory import (
    KV_TYPE_FOR,
    Device,
    Verdict,
    estimate,
    format_problem,
    precision_problem,
    shape_from_gguf,
)
from endpoints.models import InstanceType, Phase, Revision
from endpoints.models.deployment import DeploymentState, PhaseKind, PhaseState
from endpoints.models.event import Severity
from endpoints.origin import source_of, store
from endpoints.sources import Found, Source, SourceProblem
from endpoints.spec import GIB, LlmSpec, SourceKind, Spec

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=15)
REPORT_EVERY = 0.5  # seconds between two written progresses
Clock = Callable[[], datetime]


class Cancelled(Exception):
    """The phase was closed while we worked on it."""


class Unfit(Exception):
    """What is asked for can't work; `reason` is a code, the text is for the person who asked."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def validate(deployment_id: int, *, clock: Clock = timezone.now) -> bool:
    """Check the source, pin it, and check that it fits what it is to run on. True if it was found good."""
    phase = _claim(deployment_id, PhaseKind.VALIDATION, clock())
    if phase is None:
        return False
    revision = phase.deployment.revision
    spec = revision.wish
    try:
        found = _fetched(revision) or _look(revision)
        message = _fit(spec, found, revision.instance_type)
    except SourceProblem as problem:
        _fail(phase, problem.code, problem.message, clock(), passing=problem.passing)
        return False
    except Unfit as problem:
        _fail(phase, problem.reason, str(problem), clock())
        return False
    _resolve(revision, found)
    if _close(phase, PhaseState.DONE, clock(), message):
        bell.call_controller(revision.endpoint_id)
    return True


def fetch(deployment_id: int, *, clock: Clock = timezone.now) -> bool:
    """Bring the model to where its instances read it, with its bytes in the phase. True once it lies there."""
    phase = _claim(deployment_id, PhaseKind.LOADING, clock())
    if phase is None:
        return False
    revision = phase.deployment.revision
    report = Report(phase, clock)
    try:
        source = _pinned(revision)
        path = source.fetch(store(), report.progress, list(revision.resolved["files"]))
    except Cancelled:
        log.info("Fetching for %s was cancelled", revision)
        return False
    except SourceProblem as problem:
        _fail(phase, problem.code, problem.message, clock(), passing=problem.passing)
        return False
    report.finish()
    Revision.objects.filter(pk=revision.pk).update(model_path=str(path))
    Phase.objects.filter(pk=phase.pk).update(lease_until=None)
    bell.call_controller(revision.endpoint_id)
    return True


class Report:
    """Writes a fetch's progress, renews its lease, and stops it when its phase was closed."""

    def __init__(self, phase: Phase, clock: Clock) -> None:
        self.phase, self.clock = phase, clock
        self.written_at = 0.0
        self.last: tuple[int, int] | None = None

    def progress(self, done: int, total: int) -> None:
        self.last = (done, total)
        now = time.monotonic()
        if now - self.written_at < REPORT_EVERY and done < total:
            return
        self.written_at = now
        self._write()

    def finish(self) -> None:
        if self.last:
            self._write()

    def _write(self) -> None:
        done, total = self.last or (0, 0)
        running = Phase.objects.filter(pk=self.phase.pk, state=PhaseState.RUNNING)
        if not running.update(bytes_done=done, bytes_total=total, lease_until=self.clock() + LEASE):
            raise Cancelled
        endpoint = self.phase.deployment.revision.endpoint
        bell.ring_pages(endpoint.project_id, endpoint.pk, ("timeline",))


def _claim(deployment_id: int, kind: PhaseKind, at: datetime) -> Phase | None:
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
        "deployment__revision__endpoint__project", "deployment__revision__instance_type"
    ).first()


def _fail(phase: Phase, reason: str, message: str, at: datetime, *, passing: bool = False) -> None:
    """Close the phase, or leave it to be tried again until its deadline when the trouble may pass."""
    if passing and (phase.deadline is None or at + LEASE < phase.deadline):
        Phase.objects.filter(pk=phase.pk, state=PhaseState.RUNNING).update(
            reason=reason, message=f"{message} Trying again.", lease_until=at + LEASE / 3
        )
        return
    if _close(phase, PhaseState.FAILED, at, message, reason):
        bell.call_controller(phase.deployment.endpoint_id)


@transaction.atomic
def _close(phase: Phase, state: PhaseState, at: datetime, message: str, reason: str = "") -> bool:
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


def _fetched(revision: Revision) -> Found | None:
    """What was found before, if its files still lie here: a start must not need the hub again. If they are gone
    the revision forgets where they lay, so that its loading fetches them anew."""
    known = revision.resolved
    if not known or not revision.model_path:
        return None
    if not Path(revision.model_path).is_file():
        Revision.objects.filter(pk=revision.pk).update(model_path="")
        return None
    facts = GGUFFacts.from_dict(known["facts"]) if known["facts"] else None
    return Found(known["commit"], (), (), known["file"], facts, known["license"])


def _look(revision: Revision) -> Found:
    """Check the source; what lies here whole already needs no fetch, and no way to the slow queue and back."""
    source = _pinned(revision)
    found = source.check()
    if path := source.at_hand(store(), _files(found)):
        Revision.objects.filter(pk=revision.pk).update(model_path=str(path))
    return found


def _files(found: Found) -> list[str]:
    """The chosen model's files, the first one first."""
    choice = next((one for one in found.choices if one.path == found.default_file), None)
    return list(choice.files) if choice else [found.default_file]


def _resolve(revision: Revision, found: Found) -> None:
    """Write once what the revision was pinned to; a later validation of the same revision changes nothing."""
    if revision.resolved:
        return
    files = _files(found)
    resolved = {
        "commit": found.revision,
        "file": found.default_file,
        "files": files,
        "size": sum(file.size for file in found.files if file.path in files),
        "license": found.license,
        "facts": found.facts.to_dict() if found.facts else None,
    }
    Revision.objects.filter(pk=revision.pk, resolved={}).update(resolved=resolved)


def _pinned(revision: Revision) -> Source:
    """The source at the commit that the first validation saw, whatever the branch says by now."""
    wanted = revision.wish.source
    if wanted.kind == SourceKind.HUGGING_FACE and revision.resolved:
        wanted = replace(wanted, revision=revision.resolved["commit"], file=revision.resolved["file"])
    return source_of(wanted, revision.endpoint.project)


def _fit(spec: Spec, found: Found, machine: InstanceType) -> str:
    """Say that the model can run there as asked, or raise Unfit."""
    if found.facts is None:
        raise Unfit("NotAModel", "The model's header could not be read, so nothing is known of its needs.")
    problems = format_problem(
        found.facts,
        spec.llm.load_format,
        spec.llm.data_type,
        spec.llm.quantization,
        max_length=spec.llm.max_sequence_length,
    )
    if machine.gpu and (refused := precision_problem(machine.gpu, spec.llm.data_type)):
        problems.setdefault("data_type", refused)
    if problems:
        raise Unfit("SettingsDoNotFit", " ".join(problems.values()))
    return _memory(spec.llm, found, machine)


def _memory(llm: LlmSpec, found: Found, machine: InstanceType) -> str:
    assert found.facts is not None  # noqa: S101  (its caller asked)
    need = estimate(
        shape_from_gguf(found.facts),
        length=llm.max_sequence_length,
        concurrency=llm.batch_size,
        kv_type=KV_TYPE_FOR[llm.data_type],
        device=device_of(machine),
    )
    if need.verdict == Verdict.DOES_NOT_FIT:
        raise Unfit(
            "DoesNotFit",
            f"It needs {_gib(need.need_bytes)} and {machine.slug} has {_gib(need.available_bytes)}. "
            "Choose a larger machine, a shorter length or fewer sequences.",
        )
    known = (
        f"needs {_gib(need.need_bytes)} of {_gib(need.available_bytes)}" if need.need_bytes else "need not known"
    )
    return f"{found.default_file} at {found.revision[:12]}: {found.facts.quantization}, memory {known}."


def device_of(machine: InstanceType) -> Device:
    """What one instance of this type may use."""
    if machine.has_gpu:
        return Device("gpu", machine.gpu_memory_bytes, utilization=0.9)
    return Device("cpu", machine.memory_bytes)


def _gib(size: int | None) -> str:
    return f"{(size or 0) / GIB:.2f} GiB"
