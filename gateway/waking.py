"""Asking for an endpoint's first instance beside the traffic: whoever waits for it waits in `gateway.queue`."""

import asyncio
import logging

from gateway.contract import Away, Store
from gateway.routes import Route

log = logging.getLogger("gateway")


class Waker:
    """What a `Dispatch` calls as its `wake`. A wake that fails is only said: the dispatch asks again while
    anybody waits."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, route: Route) -> None:
        task = asyncio.get_running_loop().create_task(self._wake(route))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wake(self, route: Route) -> None:
        try:
            await self.store.wake(route.endpoint_id)
        except Away as away:
            log.warning("%s could not be woken: %s", route.name, away)

    async def stop(self) -> None:
        """Let those under way end; to be called before the store is closed."""
        await asyncio.gather(*self._tasks)
