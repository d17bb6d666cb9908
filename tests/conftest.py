"""Fixtures that every test may use."""

import pytest
from django.core.cache import cache

pytest_plugins = ("tests.stack.whole",)


@pytest.fixture(autouse=True)
def _no_leftovers() -> None:
    """Throttles and counters of one test must not be felt by the next."""
    cache.clear()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser journeys last: Playwright leaves an event loop running here, which no asyncio test survives."""
    items.sort(key=lambda item: "browser" in item.path.parts)
