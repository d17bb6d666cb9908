"""The controller with a fake place to run in, a clock that tests turn, and slow workers that work at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from endpoints import bell, building, controller, preparation, rebuilding
from endpoints.gguf import read_facts
from endpoints.models import Endpoint, ModelVersion, RegisteredModel
from endpoints.planner import Probe
from endpoints.probes import Asked
from endpoints.regions import replace_runtime
from tests import make
from tests.model_files import gguf
from tests.runtimes import InstantRuntime

MODEL = "smollm2-135m-instruct"  # what make.spec() asks for


def register_model(data: bytes | None = None, *, facts: bool = True) -> ModelVersion:
    """A tiny model in the registry, under the name that make.spec() asks for."""
    data = gguf() if data is None else data
    path = Path(settings.DATA_DIR) / "models" / f"{hashlib.sha256(data).hexdigest()[:12]}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    model, _ = RegisteredModel.objects.get_or_create(name=MODEL)
    known = read_facts(lambda at, size: data[at : at + size], len(data)).to_dict() if facts else {}
    return ModelVersion.objects.create(
        model=model,
        number=1,
        path=str(path.relative_to(settings.DATA_DIR)),
        files=[{"path": path.name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}],
        size_bytes=len(data),
        facts=known,
    )


class Steering:
    """Runs the controller for tests. `silent`: instances that don't answer; `sick`: healthy, but useless."""

    def __init__(self, runtime: InstantRuntime, monkeypatch: Any) -> None:
        self.runtime, self.began = runtime, timezone.now()
        self.ahead = timedelta(0)
        self.silent: set[str] = set()
        self.sick: set[str] = set()
        self.sent: list[tuple[Any, ...]] = []
        self.slow_workers = True
        make.region()
        replace_runtime("local", runtime)
        monkeypatch.setattr(bell, "send", self._send)
        monkeypatch.setattr("tests.runtimes.now", self.clock)

    def clock(self) -> datetime:
        return self.began + self.ahead

    def turn(self, **by: float) -> None:
        self.ahead += timedelta(**by)

    def probe(self, asked: Asked, clock: Callable[[], datetime]) -> Probe:
        if asked.name in self.silent:
            return Probe(None, message=f"{asked.address}/health: no answer in time")
        if asked.name in self.sick:
            return Probe(clock(), works=False, message=f"{asked.address}: /v1/chat/completions answered 500")
        at = clock()
        return Probe(at, works=True, works_at=at) if asked.prove else Probe(at)

    def reconcile(self, endpoint: Endpoint) -> bool:
        """One run, which rests on the tests' clock; the endpoint is as the run left it."""
        done = controller.reconcile(endpoint.pk, clock=self.clock, rest=self._rest, prober=self.probe)
        endpoint.refresh_from_db()
        return done

    def until(self, endpoint: Endpoint, status: str, *, minutes: float = 5) -> None:
        """Run after run, two seconds apart, as the sweep would have it."""
        ends = self.clock() + timedelta(minutes=minutes)
        while self.clock() < ends:
            self.reconcile(endpoint)
            if endpoint.status == status:
                return
            self.turn(seconds=2)
        raise AssertionError(f"{endpoint.status}, not {status}: {[str(e) for e in endpoint.events.all()[:5]]}")

    def _rest(self, turn: controller.Turn, seconds: float) -> None:
        self.turn(seconds=seconds)

    def _send(self, task: str, *arguments: Any, **options: Any) -> bool:
        self.sent.append((task, *arguments))
        slow = {
            "endpoints.validate": preparation.validate,
            "endpoints.build": building.build,
            "endpoints.rebuild": rebuilding.rebuild,
            "endpoints.fetch": preparation.fetch,
        }
        if task in slow and self.slow_workers:
            slow[task](*arguments, clock=self.clock)
        return True
