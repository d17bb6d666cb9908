from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.engine import Engine
from tests.gateway.house import House, house


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as one:
        yield one


@pytest.fixture
async def gateway(tmp_path: Path, engine: Engine) -> AsyncIterator[House]:
    async with house(tmp_path, engine) as running:
        yield running
