from __future__ import annotations

from collections.abc import Iterator

import pytest

from endpoints.regions import replace_runtime
from tests.endpoints.steering import Steering
from tests.runtimes import InstantRuntime


@pytest.fixture
def steering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steering]:
    """A controller that runs when a test says so, over a runtime that does at once what it is told."""
    yield Steering(InstantRuntime(), monkeypatch)
    replace_runtime("local", None)
