"""The threads that call the model. The event loop never does: a model may think for minutes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from serving.server.errors import Wrong
from serving.server.metrics import Metrics

T = TypeVar("T")
AHEAD = 8  # pieces of a stream that may wait for a slow reader
END = object()


class Broken(Exception):
    """A stream's iterator raised; its exception is the cause."""


def carried(error: BaseException) -> Exception:
    """What the model raised, as a request can be told it: a future refuses to carry a StopIteration, what would
    end a process must not end the server, and a connection that the model lost is not the client's."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | ConnectionError):
        return error
    other = RuntimeError(f"the model raised {type(error).__name__}: {error}")
    other.__cause__ = error
    return other


def _called(function: Callable[..., T], *args: Any) -> T:
    try:
        return function(*args)
    except BaseException as error:
        if (told := carried(error)) is error:
            raise
        raise told from error


class Workers:
    """So many calls of the model at once; more wait their turn, and beyond `queue` are refused with 503.

    Threads, not processes: the weights are in memory once, and the frameworks let go of the interpreter while
    they compute. A model whose own Python is the bottleneck scales by instances.
    """

    def __init__(self, count: int, queue: int, metrics: Metrics) -> None:
        self.queue = queue
        self.metrics = metrics
        self.busy = 0
        self._waiting = 0
        self._slots = asyncio.Semaphore(count)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="model")

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """What the function answers. Whoever gives up early leaves it running: its thread is busy till its end."""
        async with self._turn():
            await self.slot()
        return await asyncio.shield(self.begin(function, *args))

    @asynccontextmanager
    async def stream(self, pieces: Callable[[], Iterator[Any]]) -> AsyncIterator[Stream]:
        """The pieces as they come. Whoever leaves early stops the work at its next piece."""
        async with self._turn():
            await self.slot()
        stream = Stream(pieces, asyncio.get_running_loop())
        self.begin(stream.run)
        try:
            yield stream
        finally:
            stream.stop()

    async def slot(self) -> None:
        """Wait for a free worker and take it: `begin` must follow."""
        await self._slots.acquire()
        self.busy += 1

    def begin(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run this in the worker that `slot` took, and free it at the end."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, _called, function, *args)
        future.add_done_callback(self._ended)
        return future

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One place among those who wait. Wrong 503 if there is none."""
        if self._waiting >= self.queue:
            raise Wrong(503, f"{self._waiting} requests wait already", code="overloaded")
        self._waiting += 1
        self.metrics.queued.inc()
        try:
            yield
        finally:
            self._waiting -= 1
            self.metrics.queued.dec()

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self.busy -= 1
        self._slots.release()
        if not future.cancelled():
            future.exception()  # whoever waited for it may be gone


class Stream:
    """One iterator of a worker thread, read by a coroutine: a few pieces ahead, never all of them."""

    def __init__(self, pieces: Callable[[], Iterator[Any]], loop: asyncio.AbstractEventLoop) -> None:
        self._make = pieces
        self._loop = loop
        self._room = threading.Semaphore(AHEAD)
        self._stopped = threading.Event()
        self._queue: asyncio.Queue[tuple[Exception | None, Any]] = asyncio.Queue()

    def run(self) -> None:
        """In the worker thread."""
        try:
            iterator = self._make()
            for piece in iterator:
                self._room.acquire()
                if self._stopped.is_set():
                    _close(iterator)
                    return
                self._put(None, piece)
        except BaseException as error:  # noqa: BLE001  raised again by the coroutine
            self._put(carried(error), None)
        else:
            self._put(None, END)

    async def next(self, seconds: float) -> Any:
        """The next piece, or END. TimeoutError if none comes in time; Broken for what the iterator raised."""
        async with asyncio.timeout(seconds):  # wait_for of Python 3.11 swallows a cancellation now and then
            error, value = await self._queue.get()
        if error is not None:
            raise Broken from error
        self._room.release()
        return value

    def stop(self) -> None:
        """The thread ends at its next piece."""
        self._stopped.set()
        self._room.release()

    def _put(self, error: Exception | None, value: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody reads
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (error, value))


def _close(iterator: Iterator[Any]) -> None:
    if hasattr(iterator, "close"):
        iterator.close()
