import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.gateway.engine import Engine
from tests.gateway.house import House, house


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The gateway is served on uvloop, whose transports differ from asyncio's in what they forgive."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as one:
        yield one


@pytest.fixture
async def gateway(tmp_path: Path, engine: Engine) -> AsyncIterator[House]:
    async with house(tmp_path, engine) as running:
        yield running
