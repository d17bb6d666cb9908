"""The slow steps of a deployment that are about its model: a look at it before anything starts, and its fetch."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from django.utils import timezone

from endpoints import bell
from endpoints.fitting import Unfit, fit, found_of, refuse_place
from endpoints.learning import learned
from endpoints.models import Phase, Revision
from endpoints.models.deployment import PhaseKind, PhaseState
from endpoints.origin import source_of, store, version_of
from endpoints.phase_work import Cancelled, Clock, Report, claim, close, fail
from endpoints.regions import runtime_of
from endpoints.runtimes.base import MODEL_FOLDER
from endpoints.sources import Found, Source, SourceProblem
from endpoints.sources.note import BAD
from endpoints.sources.scan import scan_folder
from endpoints.sources.store import key_of
from endpoints.spec import Framework, SourceKind, Spec
from endpoints.workloads import IN_IMAGE

log = logging.getLogger(__name__)
SCANNING = timedelta(seconds=60)  # that looking through a model's files may take
SAID = 3  # findings that the refusal names; all stand in the log


def validate(deployment_id: int, *, clock: Clock = timezone.now) -> bool:
    """Check the source, pin it, and check that it fits what it is to run on. True if it was found good."""
    phase = claim(deployment_id, PhaseKind.VALIDATION, clock())
    if phase is None:
        return False
    revision = phase.deployment.revision
    try:
        message = _judged(revision)
    except SourceProblem as problem:
        fail(phase, problem.code, problem.message, clock(), passing=problem.passing)
        return False
    except Unfit as problem:
        fail(phase, problem.reason, str(problem), clock())
        return False
    if close(phase, PhaseState.DONE, clock(), message):
        bell.call_controller(revision.endpoint_id)
    return True


def _judged(revision: Revision) -> str:
    """What validation says of a revision that can work, with what it is pinned to written down."""
    spec: Spec = revision.wish
    refuse_place(spec, revision.endpoint.region, revision.instance_type)
    if spec.source.kind == SourceKind.NONE:
        Revision.objects.filter(pk=revision.pk).update(model_path=IN_IMAGE)
        return f"{spec.container.image} brings its own model; its memory need is not known."
    _refuse_another(revision)
    found = _fetched(revision) or _look(revision)
    known = learned(revision, found, at=timezone.now())
    message = fit(spec, found, revision.instance_type, correction=known.correction, floor=known.floor)
    _resolve(revision, found)
    return message


def _refuse_another(revision: Revision) -> None:
    """Raise Unfit for a registered model that isn't the one which this revision had: names can be given again."""
    kept = revision.resolved.get("registered")
    if kept and kept != _registered(revision):
        named = f"“{revision.wish.source.model}” version {revision.wish.source.version}"
        said = f"{named} was deleted, and another model was registered under its name."
        raise Unfit("ModelReplaced", f"{said} Deploy a new revision of it.")


def _registered(revision: Revision) -> str:
    """Names the very files of a version of the registry; "" for other sources."""
    source = revision.wish.source
    if source.kind != SourceKind.REGISTRY:
        return ""
    files = version_of(source, revision.endpoint.project).files
    return key_of(*(f"{file['path']}\0{file.get('sha256')}" for file in files))


def fetch(deployment_id: int, *, clock: Clock = timezone.now) -> bool:
    """Bring the model to where its instances read it, with its bytes in the phase. True once it lies there."""
    phase = claim(deployment_id, PhaseKind.LOADING, clock())
    if phase is None:
        return False
    revision = phase.deployment.revision
    report = Report(phase, clock)
    files = list(revision.resolved["files"])
    try:
        first = _pinned(revision).fetch(store(), report.progress, files)
        path = _root(revision, first, files)
        if path != first:
            report.hold(SCANNING)
            _scan(path, files, report)
    except Cancelled:
        log.info("Fetching for %s was cancelled", revision)
        return False
    except SourceProblem as problem:
        fail(phase, problem.code, problem.message, clock(), passing=problem.passing)
        return False
    except Unfit as problem:
        fail(phase, problem.reason, str(problem), clock())
        return False
    except OSError as problem:
        said = f"The model can't be kept on the console's machine: {problem.strerror or problem}."
        fail(phase, "StoreFailed", said, clock(), passing=True)
        return False
    report.finish()
    Revision.objects.filter(pk=revision.pk).update(model_path=str(path))
    Phase.objects.filter(pk=phase.pk).update(lease_until=None)
    bell.call_controller(revision.endpoint_id)
    return True


def _scan(root: Path, files: list[str], report: Report) -> None:
    """Look into the files before anything loads them; what is found stands in the phase's log. Raises Unfit."""
    notes = scan_folder(root, files, seconds=SCANNING.total_seconds())
    for note in notes:
        report.line(note.said)
    if bad := [note.said for note in notes if note.level == BAD]:
        raise Unfit("UnsafeModel", f"The model was not loaded. {' '.join(bad[:SAID])}")


def _root(revision: Revision, first: Path, files: list[str]) -> Path:
    """What an engine is given: of GGUF files the first one, else the folder in which they all lie."""
    return first if _one_file(revision.wish) else first.parents[len(Path(files[0]).parts) - 1]


def _one_file(spec: Spec) -> bool:
    return spec.engine == Framework.LLAMA_CPP


def _fetched(revision: Revision) -> Found | None:
    """What was found before, if its files still lie here: a start must not need the source again. If they are gone
    the revision forgets where they lay, so that its loading fetches them anew."""
    known = revision.resolved
    if not known or not revision.model_path:
        return None
    if not _elsewhere(revision) and not Path(revision.model_path).exists():
        Revision.objects.filter(pk=revision.pk).update(model_path="")
        return None
    return found_of(known)


def _elsewhere(revision: Revision) -> bool:
    """Whether the region brings the model to its instances itself."""
    return runtime_of(revision.endpoint.region).fetches


def _look(revision: Revision) -> Found:
    """Check the source; what lies here whole already needs no fetch, and no way to the slow queue and back."""
    source = _pinned(revision)
    found = source.check(revision.wish.engine)
    files = _files(found)
    path: Path | None = None
    if _elsewhere(revision):
        path = Path(MODEL_FOLDER, files[0]) if _one_file(revision.wish) else Path(MODEL_FOLDER)
    elif _one_file(revision.wish):  # a folder is looked through after each fetch, which is quick when it lies here
        path = source.at_hand(store(), files)
    if path:
        Revision.objects.filter(pk=revision.pk).update(model_path=str(path))
    return found


def _files(found: Found) -> list[str]:
    """The chosen model's files, the first one first; all of them where the folder is the model."""
    choice = next((one for one in found.choices if one.path == found.default_file), None)
    if choice:
        return list(choice.files)
    return [found.default_file] if found.default_file else [file.path for file in found.files]


def _resolve(revision: Revision, found: Found) -> None:
    """Write once what the revision was pinned to; a later validation of the same revision changes nothing."""
    if revision.resolved:
        return
    files = _files(found)
    wanted = set(files)
    resolved = {
        "commit": found.revision,
        "file": found.default_file,
        "files": files,
        "size": sum(file.size for file in found.files if file.path in wanted),
        "license": found.license,
        "registered": _registered(revision),
        "facts": found.facts.to_dict() if found.facts else None,
        "weights": found.weights.to_dict() if found.weights else None,
        "layout": found.layout.to_dict() if found.layout else None,
    }
    Revision.objects.filter(pk=revision.pk, resolved={}).update(resolved=resolved)


def _pinned(revision: Revision) -> Source:
    """The source at the commit that the first validation saw, whatever the branch says by now."""
    wanted = revision.wish.source
    if wanted.kind != SourceKind.REGISTRY and revision.resolved:
        wanted = replace(wanted, revision=revision.resolved["commit"], file=revision.resolved["file"])
    return source_of(wanted, revision.endpoint.project)
