"""Fixtures that every test may use."""

import pytest
from django.core.cache import cache

pytest_plugins = ("tests.stack.whole",)


@pytest.fixture(autouse=True)
def _no_leftovers() -> None:
    """Throttles and counters of one test must not be felt by the next."""
    cache.clear()
