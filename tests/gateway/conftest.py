import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from gateway import compiled
from gateway import line as transport
from tests.gateway.engine import Engine
from tests.gateway.house import PATIENCE, House, house


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The gateway is served on uvloop, whose transports differ from asyncio's in what they forgive."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs the sources themselves is left to a run with GATEWAY_COMPILED=no, see .ci/test."""
    left = [item for item in items if compiled.runs and item.get_closest_marker("interpreted")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


@pytest.fixture(autouse=True)
def _hung_up_on_for_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits to be hung up on waits for less than that."""
    monkeypatch.setattr(transport, "LINGER_SECONDS", 2 * PATIENCE)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as one:
        yield one


@pytest.fixture
async def gateway(tmp_path: Path, engine: Engine) -> AsyncIterator[House]:
    async with house(tmp_path, engine) as running:
        yield running
