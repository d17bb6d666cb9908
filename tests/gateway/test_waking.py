"""A call to what sleeps reaches the model's verb, and a database that is away is only said."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from gateway.contract import Away
from gateway.routes import Route
from gateway.waking import Waker

TINY = Route(7, "tiny", "local", 1, 1)


class Sleepy:
    """A store that wakes, when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.woken: list[int] = []
        self.away = False

    async def wake(self, endpoint_id: int) -> None:
        await self.let.wait()
        if self.away:
            raise Away("PostgreSQL: no")
        self.woken.append(endpoint_id)


async def waking(*, away: bool = False) -> Sleepy:
    store: Any = Sleepy()
    store.away = away
    waker = Waker(store)
    waker(TINY)
    store.let.set()
    await waker.stop()
    assert isinstance(store, Sleepy)
    return store


async def test_the_endpoint_is_woken_before_the_store_closes() -> None:
    assert (await waking()).woken == [7]


async def test_a_store_that_is_away_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "gateway")
    await waking(away=True)
    assert "tiny could not be woken: PostgreSQL: no" in caplog.text
