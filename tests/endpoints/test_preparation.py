"""The slow steps: what is found good, what is refused and how, and what survives a killed worker."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from endpoints import phase_work, preparation
from endpoints.models import Endpoint, ModelVersion, Phase, Revision
from endpoints.models.deployment import PhaseKind, PhaseState
from endpoints.sources import SourceProblem
from endpoints.spec import SourceSpec
from tests import make
from tests.endpoints.steering import MODEL, Steering, register_model
from tests.model_files import gguf

pytestmark = pytest.mark.django_db


def begun(kind: str = PhaseKind.VALIDATION, *, changed: dict[str, object] | None = None, **llm: object) -> Phase:
    """The phase of a new endpoint's deployment, begun as the planner begins it."""
    spec = make.spec()
    spec = replace(spec, llm=replace(spec.llm, **llm), **(changed or {}))  # type: ignore[arg-type]
    make.instance_type()
    project = make.project()
    endpoint = Endpoint.launch(project, spec, by=make.user())
    at = timezone.now()
    phase = Phase.objects.get(deployment__endpoint=endpoint, kind=kind)
    Phase.objects.filter(pk=phase.pk).update(
        state=PhaseState.RUNNING, started_at=at, deadline=at + timedelta(minutes=2)
    )
    phase.refresh_from_db()
    return phase


def validated() -> Phase:
    phase = begun()
    assert preparation.validate(phase.deployment_id)
    loading = Phase.objects.get(deployment=phase.deployment_id, kind=PhaseKind.LOADING)
    Phase.objects.filter(pk=loading.pk).update(state=PhaseState.RUNNING, started_at=timezone.now())
    return loading


# ── validation ───────────────────────────────────────────────────────────────────────────────────
def test_a_good_model_is_pinned_and_its_memory_is_said(steering: Steering) -> None:
    version = register_model()
    phase = begun()
    assert preparation.validate(phase.deployment_id)
    phase.refresh_from_db()
    assert phase.state == PhaseState.DONE
    assert "memory needs" in phase.message
    revision = phase.deployment.revision
    assert revision.resolved["size"] == version.size_bytes
    assert revision.resolved["files"] == [version.files[0]["path"]]
    assert ("endpoints.reconcile", phase.deployment.endpoint_id) in steering.sent


def test_the_end_of_validation_is_an_event_with_its_duration(steering: Steering) -> None:
    register_model()
    phase = begun()
    preparation.validate(phase.deployment_id)
    event = phase.deployment.endpoint.events.get(kind="phase.ended")
    assert event.after == "validation"
    assert event.message.startswith("Validation: ")
    assert event.message.endswith(" s)")


def test_a_registered_header_is_not_read_again(steering: Steering, monkeypatch: pytest.MonkeyPatch) -> None:
    register_model()
    monkeypatch.setattr("endpoints.sources.registry.read_model", lambda *_: pytest.fail("read again"))
    assert preparation.validate(begun().deployment_id)


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"not a model at all, but long enough to be read", "not_gguf", "GGUF"),
        (gguf({"llama.context_length": 64}), "SettingsDoNotFit", "64"),
    ],
)
def test_what_can_t_work_is_refused_with_its_reason(
    steering: Steering, data: bytes, reason: str, words: str
) -> None:
    register_model(data, facts=False)
    phase = begun()
    assert not preparation.validate(phase.deployment_id)
    phase.refresh_from_db()
    assert (phase.state, phase.reason) == (PhaseState.FAILED, reason)
    assert words in phase.message
    assert phase.deployment.endpoint.events.filter(kind="phase.failed", reason=reason).exists()


def test_a_model_larger_than_the_machine_is_refused_in_numbers(steering: Steering) -> None:
    register_model()
    make.instance_type(memory_bytes=1 << 20)
    phase = begun()
    preparation.validate(phase.deployment_id)
    phase.refresh_from_db()
    assert phase.reason == "DoesNotFit"
    assert "c6i.large has 0.00 GiB" in phase.message


@pytest.mark.parametrize(("model", "reason"), [("nothing-like-it", "no_such_model"), (MODEL, "no_such_version")])
def test_what_the_registry_lacks_is_refused(steering: Steering, model: str, reason: str) -> None:
    register_model()
    phase = begun(changed={"source": SourceSpec(kind="registry", model=model, version=7)})
    preparation.validate(phase.deployment_id)
    phase.refresh_from_db()
    assert (phase.state, phase.reason) == (PhaseState.FAILED, reason)


def test_trouble_that_may_pass_is_tried_again_until_the_deadline(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise SourceProblem("no_network", "The Hub can't be reached.", "model_id", passing=True)

    monkeypatch.setattr(preparation, "source_of", away)
    phase = begun()
    preparation.validate(phase.deployment_id)
    phase.refresh_from_db()
    assert (phase.state, phase.reason) == (PhaseState.RUNNING, "no_network")
    assert phase.message == "The Hub can't be reached. Trying again."
    assert phase.lease_until is not None
    late = phase.deadline
    assert late is not None
    preparation.validate(phase.deployment_id, clock=lambda: late)
    phase.refresh_from_db()
    assert (phase.state, phase.message) == (PhaseState.FAILED, "The Hub can't be reached.")


@pytest.mark.parametrize("step", [preparation.validate, preparation.fetch])
def test_a_late_message_for_a_deployment_that_is_over_does_nothing(steering: Steering, step) -> None:  # type: ignore[no-untyped-def]
    register_model()
    phase = begun()
    phase.deployment.endpoint.cancel(by=None)
    assert not step(phase.deployment_id)
    phase.refresh_from_db()
    assert phase.state == PhaseState.CANCELLED


def test_a_message_that_comes_twice_does_its_work_once(steering: Steering) -> None:
    register_model()
    phase = begun()
    assert preparation.validate(phase.deployment_id)
    assert not preparation.validate(phase.deployment_id)
    assert phase.deployment.endpoint.events.filter(kind="phase.ended").count() == 1


def test_a_name_that_was_given_again_brings_no_revision_another_model(steering: Steering) -> None:
    register_model()
    phase = begun()
    assert preparation.validate(phase.deployment_id)
    ModelVersion.objects.all().delete()
    register_model(gguf({"general.name": "another"}))
    Phase.objects.filter(pk=phase.pk).update(state=PhaseState.RUNNING, ended_at=None)
    assert not preparation.validate(phase.deployment_id)
    phase.refresh_from_db()
    assert (phase.state, phase.reason) == (PhaseState.FAILED, "ModelReplaced")
    assert "was deleted, and another model was registered under its name" in phase.message


# ── loading ──────────────────────────────────────────────────────────────────────────────────────
def test_fetching_says_its_bytes_and_where_the_model_lies(steering: Steering) -> None:
    version = register_model()
    loading = validated()
    assert preparation.fetch(loading.deployment_id)
    loading.refresh_from_db()
    assert loading.bytes_done == loading.bytes_total == version.size_bytes
    assert loading.lease_until is None
    assert loading.state == PhaseState.RUNNING  # the engine has still to load it
    assert Path(loading.deployment.revision.model_path).is_file()


def test_a_damaged_model_fails_the_loading(steering: Steering) -> None:
    version = register_model()
    loading = validated()
    ModelVersion.objects.filter(pk=version.pk).update(files=[version.files[0] | {"sha256": "0" * 64}])
    assert not preparation.fetch(loading.deployment_id)
    loading.refresh_from_db()
    assert (loading.state, loading.reason) == (PhaseState.FAILED, "damaged")


def test_a_disk_that_takes_nothing_is_said_and_tried_again(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_model()
    loading = validated()

    class Worn:
        def fetch(self, into, progress, files):  # type: ignore[no-untyped-def]
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(into / "model.gguf"))

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_pinned", lambda _: Worn())
        assert not preparation.fetch(loading.deployment_id)
    loading.refresh_from_db()
    assert (loading.state, loading.reason) == (PhaseState.RUNNING, "StoreFailed")
    assert loading.message == (
        "The model can't be kept on the console's machine: Read-only file system. Trying again."
    )
    assert preparation.fetch(loading.deployment_id)


def test_cancelling_stops_a_fetch_that_is_under_way(steering: Steering, monkeypatch: pytest.MonkeyPatch) -> None:
    register_model()
    loading = validated()

    class Endless:
        def fetch(self, into, progress, files):  # type: ignore[no-untyped-def]
            loading.deployment.endpoint.cancel(by=None)
            progress(1, 1)
            pytest.fail("it went on")

    monkeypatch.setattr(preparation, "_pinned", lambda _: Endless())
    assert not preparation.fetch(loading.deployment_id)
    assert Revision.objects.get(pk=loading.deployment.revision_id).model_path == ""


def test_a_worker_at_work_holds_its_phase_and_renews_it(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_model()
    loading = validated()
    leases: list[datetime] = []

    class Slow:
        def fetch(self, into, progress, files):  # type: ignore[no-untyped-def]
            for done in (0, 10):
                steering.turn(seconds=10)
                progress(done, 10)
                until = Phase.objects.get(pk=loading.pk).lease_until
                assert until is not None
                leases.append(until)
                assert leases[-1] > steering.clock()
            return into / "model.gguf"

    monkeypatch.setattr(phase_work, "REPORT_EVERY", 0)
    monkeypatch.setattr(preparation, "_pinned", lambda _: Slow())
    assert preparation.fetch(loading.deployment_id, clock=steering.clock)
    assert leases[1] > leases[0]


def test_a_start_needs_no_source_while_the_files_lie_here(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_model()
    endpoint = make.endpoint()
    steering.until(endpoint, "active")
    endpoint.stop(by=None, at=steering.clock())
    steering.until(endpoint, "stopped")
    monkeypatch.setattr(preparation, "source_of", lambda *_: pytest.fail("the source was asked"))
    endpoint.start(by=None, at=steering.clock())
    steering.until(endpoint, "active")
    loading = endpoint.latest_deployment.phases.get(kind="loading")  # type: ignore[union-attr]
    assert loading.bytes_done == loading.bytes_total
    assert loading.bytes_total


def test_a_start_fetches_again_what_was_removed(steering: Steering, tmp_path: Path) -> None:
    register_model()
    endpoint = make.endpoint()
    steering.until(endpoint, "active")
    endpoint.stop(by=None, at=steering.clock())
    steering.until(endpoint, "stopped")
    Revision.objects.filter(endpoint=endpoint).update(model_path=str(tmp_path / "gone.gguf"))
    endpoint.start(by=None, at=steering.clock())
    steering.until(endpoint, "active")
    assert Path(endpoint.revisions.get().model_path).is_file()
