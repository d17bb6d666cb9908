"""The database from a gateway's loop, in threads of its own: what waits there delays neither routes nor counts."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from django.db import connections

from gateway.store import reaching

T = TypeVar("T")
THREADS = 2
PATIENCE = 10.0


class Database:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="jobs")

    async def do(self, act: Callable[[], T]) -> T:
        """Raises Away when the database can't be reached."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, reaching, act)

    async def close(self) -> None:
        """Each thread closes its own connection, which no other can."""
        loop, all_here = asyncio.get_running_loop(), Barrier(THREADS)

        def close() -> None:
            connections.close_all()
            all_here.wait(PATIENCE)

        await asyncio.gather(*(loop.run_in_executor(self._threads, close) for _ in range(THREADS)))
        self._threads.shutdown()
