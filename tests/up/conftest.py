"""An `up` of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.up.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "data")
    yield made
    made.clean()
