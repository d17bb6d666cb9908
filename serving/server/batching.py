"""Dynamic batching: items of several requests are worked on together, and fail alone."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from serving.models.base import BadInput
from serving.server.errors import Wrong
from serving.server.metrics import Metrics
from serving.server.workers import Workers, carried

log = logging.getLogger("serving")


class Batcher:
    """Gathers up to `most` items: for `window` seconds after the first, and longer while every worker is busy."""

    def __init__(
        self,
        workers: Workers,
        metrics: Metrics,
        kind: str,
        work: Callable[[list[Any]], list[Any]],
        *,
        most: int,
        window: float,
    ) -> None:
        self.kind = kind
        self.work = work
        self.workers = workers
        self.metrics = metrics
        self.most = most
        self.window = window
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._full = asyncio.Event()
        self._gathering: asyncio.Task[None] | None = None

    async def all_of(self, items: Sequence[Any]) -> list[Any]:
        """For each item its output, or the exception that it alone caused."""
        if len(self._waiting) + len(items) > self.workers.queue:
            raise Wrong(503, f"{len(self._waiting)} items wait already", code="overloaded")
        loop = asyncio.get_running_loop()
        added = [(item, loop.create_future()) for item in items]
        self._waiting.extend(added)
        self.metrics.queued.inc(len(added))
        if len(self._waiting) >= self.most:
            self._full.set()
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._gather())
        return await asyncio.gather(*(future for _, future in added), return_exceptions=True)

    async def _gather(self) -> None:
        while self._waiting:
            if self.most > 1:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.window):
                        await self._full.wait()
            await self.workers.slot()
            batch = self._taken()
            items = [item for item, _ in batch]
            if items:
                self.metrics.batches.labels(self.kind).observe(len(items))
            work = self.workers.begin(self._attempted, items)
            work.add_done_callback(partial(_hand_out, [future for _, future in batch]))

    def _taken(self) -> list[tuple[Any, asyncio.Future[Any]]]:
        """The next batch, without those whose sender is gone."""
        batch: list[tuple[Any, asyncio.Future[Any]]] = []
        while self._waiting and len(batch) < self.most:
            item, future = self._waiting.popleft()
            self.metrics.queued.dec()
            if not future.done():
                batch.append((item, future))
        if len(self._waiting) < self.most:
            self._full.clear()
        return batch

    def _attempted(self, items: list[Any]) -> list[Any]:
        """In a worker thread: an output or an exception for each; a batch that fails is tried item by item."""
        if not items:
            return []
        try:
            return self.work(items)
        except BaseException as error:
            if len(items) == 1:
                if not isinstance(error, BadInput):
                    log.exception("the model failed at %s", self.kind)
                return [carried(error)]
        return [self._attempted([item])[0] for item in items]


def _hand_out(futures: list[asyncio.Future[Any]], done: asyncio.Future[list[Any]]) -> None:
    for future, output in zip(futures, done.result(), strict=True):
        if future.done():
            continue
        if isinstance(output, Exception):
            future.set_exception(output)
        else:
            future.set_result(output)
