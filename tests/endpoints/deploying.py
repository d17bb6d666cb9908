"""Deployments through the real controller and slow steps, without a worker: in this process, one after another."""

from __future__ import annotations

import pytest

from endpoints import bell, building, controller, facts, preparation
from endpoints.models import Endpoint
from endpoints.status import Status
from tests.wait import until


def run_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow steps run where they are asked for; a ring for the controller is dropped. Nothing is
    carried, for there is no gateway."""
    slow = {
        "endpoints.validate": preparation.validate,
        "endpoints.build": building.build,
        "endpoints.fetch": preparation.fetch,
    }

    def send(task: str, *arguments: int, queue: str = "control") -> bool:
        if task in slow:
            slow[task](*arguments)
        return True

    monkeypatch.setattr(bell, "send", send)
    monkeypatch.setattr(facts, "carried", dict)


def settles(endpoint: Endpoint, status: Status) -> None:
    """Reconcile until it has this status."""

    def look() -> bool:
        controller.reconcile(endpoint.pk)
        endpoint.refresh_from_db()
        return endpoint.status == status

    def seen() -> str:
        newest = endpoint.latest_deployment
        phases = newest.phases.values_list("kind", "state", "message") if newest else ()
        return f"{endpoint} to be {status}; it is {endpoint.status}: {list(phases)} {newest and newest.log_tail}"

    until(look, seconds=60, what=seen)
