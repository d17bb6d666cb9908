"""Our own HTTP/1.1 client towards instances: httptools, kept-alive sockets, bodies as they come.

It tells apart what matters for a second try. `Refused`: no connection came about, nothing can have begun.
`Lost`: it ended after the request was on its way, so the engine may have worked on it.
"""

import asyncio
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

CONNECT_SECONDS = 2.0
IDLE_SECONDS = 3.0  # less than the five after which llama.cpp and uvicorn hang up
FICKLE_SECONDS = 60.0  # without reuse, where an engine hung up right behind an answer
BEHIND_SECONDS = 0.5  # that long after its answer is right behind it
HIGH_WATER = 256 * 1024
HEADER_LIMIT = 64 * 1024

Address = tuple[str, int]


class Refused(Exception):
    """No connection to the instance; nothing was sent."""


class Lost(Exception):
    """The connection ended before the answer was whole."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer; names in lower case."""

    status: int
    headers: dict[bytes, bytes]

    @property
    def content_type(self) -> bytes:
        return self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


class Connection(asyncio.Protocol):
    """One socket, one request at a time. Reading pauses while nobody takes what came."""

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.reusable = False
        self.hung_up = False  # the engine did, not we
        self.idle_since = 0.0  # since the last answer; 0 before it
        self._poll: select.poll | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._expecting = False
        self._reset()

    def _reset(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.head: Head | None = None
        self.complete = False
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._unbodied = 0  # bytes since the last of a body: of heads, trailers, extensions
        self._parts: list[bytes] = []
        self._size = 0
        self._paused = False

    # ── for the one who asks ─────────────────────────────────────────────────────────────────────
    def send(self, data: bytes) -> None:
        """Begin a request: `data` is its head and body. Whoever sends must read to the end, or close."""
        self._reset()
        self._expecting, self.reusable = True, False
        if self.transport is not None:
            self.transport.write(data)

    async def answer(self, patience: float) -> Head | None:
        """The answer's head; None when none came within `patience` seconds. Raises Lost."""
        while self.head is None:
            if self.closed:
                raise Lost("it hung up without an answer")
            if not await self._wait(patience):
                return None
        return self.head

    async def read(self, patience: float) -> bytes | None:
        """What came of the body; b"" at its end, None when `patience` seconds passed in silence. Raises Lost."""
        while not self._parts:
            if self.complete:
                return b""
            if self.closed:
                raise Lost("it hung up in the middle of its answer")
            if not await self._wait(patience):
                return None
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._size = [], 0
        if self._paused and self.transport is not None and not self.closed:
            self._paused = False
            self.transport.resume_reading()
        return data

    def close(self) -> None:
        """Hang up at once: this is what makes an engine stop working on the request."""
        self.closed, self.reusable = True, False
        if self.transport is not None:
            self.transport.abort()
        self._wake()

    def sound(self) -> bool:
        """Whether an idle connection can still carry a request: nothing is to be read, so no hang-up either."""
        if self.closed or self.transport is None or self.transport.is_closing():
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    # ── for the event loop ───────────────────────────────────────────────────────────────────────
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by behaviour only

    def data_received(self, data: bytes) -> None:
        if not self._expecting:
            self.close()  # an answer to nothing: this connection's order is lost
            return
        self._unbodied += len(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()
            return
        if self._unbodied > HEADER_LIMIT and not self.complete:
            self.close()
            return
        if self._size > HIGH_WATER and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        unframed = self.head is not None and not (
            b"content-length" in self.head.headers or b"transfer-encoding" in self.head.headers
        )
        if unframed and exc is None and not self.closed:
            self.complete = True  # an answer without a length ends with its connection
        self.hung_up = not self.closed
        self.closed, self.reusable = True, False
        self._wake()

    # ── for the parser ───────────────────────────────────────────────────────────────────────────
    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer")  # must not become a part of the first, nor anybody's

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_LIMIT:
            raise ValueError("the answer's head is too long")
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status >= 200:  # what comes before is a note on the way, such as 100 Continue
            self.head = Head(status, self._headers)
        self._headers, self._header_bytes = {}, 0

    def on_body(self, body: bytes) -> None:
        self._unbodied = 0
        self._parts.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        if self.head is not None:
            self.complete = True
            self._expecting = False
            # llama.cpp promises to keep a connection and hangs up after each stream all the same, a moment
            # later: a request that was sent meanwhile would be lost.
            streamed = b"transfer-encoding" in self.head.headers
            unsent = self.transport is not None and self.transport.get_write_buffer_size() > 0
            # The parser knows only in here whether the engine keeps it.
            self.reusable = self.parser.should_keep_alive() and not streamed and not unsent

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────
    async def _wait(self, patience: float) -> bool:
        """True when something happened, False when `patience` seconds passed first."""
        self._waiter = self.loop.create_future()
        timer = self.loop.call_later(patience, self._give_up)
        try:
            return await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def _give_up(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(False)


class Pool:
    """Connections that wait for their next request, by address; the last one used goes first."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        idle_seconds: float = IDLE_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self.clock = clock
        self.idle_seconds = idle_seconds
        self.connect_seconds = connect_seconds
        self.idle: dict[Address, list[Connection]] = {}
        self.fickle: dict[Address, float] = {}  # engines that hang up unannounced, and until when that counts

    async def acquire(self, address: Address) -> Connection:
        """A connection that nothing was sent on yet for this request. Raises Refused."""
        return self._waiting(address) or await self._connect(address)

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next request if its answer was read to the end and the engine agrees; else hang up."""
        if not (connection.complete and connection.reusable and not connection.closed):
            if connection.hung_up and connection.head is None:
                self._distrust(connection)
            connection.close()
            return
        now = self.clock()
        if now < self.fickle.get(connection.address, 0.0):
            connection.close()
            return
        connection.idle_since = now
        self.idle.setdefault(connection.address, []).append(connection)

    def sweep(self) -> None:
        """Hang up what waited too long."""
        oldest = self.clock() - self.idle_seconds
        self.fickle = {address: until for address, until in self.fickle.items() if until > self.clock()}
        for address, waiting in list(self.idle.items()):
            kept = [one for one in waiting if one.idle_since > oldest and not one.closed]
            for one in waiting:
                if one not in kept:
                    one.close()
            if kept:
                self.idle[address] = kept
            else:
                del self.idle[address]

    def close(self) -> None:
        for waiting in self.idle.values():
            for one in waiting:
                one.close()
        self.idle.clear()

    def _waiting(self, address: Address) -> Connection | None:
        waiting = self.idle.get(address)
        oldest = self.clock() - self.idle_seconds
        while waiting:
            connection = waiting.pop()
            if connection.idle_since > oldest and connection.sound():
                return connection
            self._distrust(connection)
            connection.close()
        return None

    def _distrust(self, connection: Connection) -> None:
        """An engine that hangs up right behind an answer, without having said so, would lose the next request
        every so often: a moment later, none could tell whether it had begun."""
        now = self.clock()
        if now - connection.idle_since < BEHIND_SECONDS:
            self.fickle[connection.address] = now + FICKLE_SECONDS

    async def _connect(self, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.connect_seconds):
                made = await loop.create_connection(lambda: Connection(address, loop), *address)
        except TimeoutError as late:
            raise Refused(f"no connection within {self.connect_seconds:g} s") from late
        except OSError as refused:
            raise Refused(refused.strerror or str(refused)) from refused
        return made[1]
