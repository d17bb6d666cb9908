"""Connections to instances that wait for their next request, and those that are being made."""

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import Protocol

from gateway.heads import Heads
from gateway.upstream import Address, Connection, Head

log = logging.getLogger("gateway")

OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
CONNECT_SECONDS = 2.0
IDLE_SECONDS = 3.0  # less than the five after which llama.cpp and uvicorn hang up
FICKLE_SECONDS = 60.0  # without reuse, where an engine hung up right behind an answer
BEHIND_SECONDS = 0.5  # that long after its answer is right behind it
DOUBT_SECONDS = 0.25  # until it shows whether an engine hangs up behind a stream, which says nothing of others
LINGER_SECONDS = 1.0  # for the end of an answer that nobody needs any more


class Seeker(Protocol):
    """Who asked for a connection and is told how that ended."""

    def connected(self, connection: Connection) -> None:
        """Nothing was sent on it yet."""

    def unreachable(self) -> None:
        """The instance took no connection: nothing can have begun there."""

    def without_means(self) -> None:
        """This process has no file or no port left for a connection, which says nothing of the instance."""


class Pool:
    """By address; the last one used goes first."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        idle_seconds: float = IDLE_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.idle_seconds = idle_seconds
        self.connect_seconds = connect_seconds
        self.heads: Heads[Head] = Heads()
        self.idle: dict[Address, list[Connection]] = {}
        self.fickle: dict[Address, float] = {}  # engines that hang up unannounced, and until when that counts
        self.leaving: dict[Connection, float] = {}  # and when they are cut off
        self._returned: list[Connection] = []
        self._doubted: set[Connection] = set()  # which nobody may use yet
        self._making: set[asyncio.Task[None]] = set()

    def waiting(self, address: Address) -> Connection | None:
        """One that was used before, and that nothing was sent on yet for this request."""
        waiting = self.idle.get(address)
        if not waiting:
            return None
        oldest = self.clock() - self.idle_seconds
        while waiting:
            connection = waiting.pop()
            if connection.idle_since > oldest and connection.sound():
                return connection
            self._distrust(connection)
            connection.close()
        return None

    def connect(self, address: Address, seeker: Seeker) -> None:
        """Make one, and tell the seeker."""
        making = self.loop.create_task(self._connect(address, seeker))
        self._making.add(making)
        making.add_done_callback(self._making.discard)

    async def _connect(self, address: Address, seeker: Seeker) -> None:
        try:
            async with asyncio.timeout(self.connect_seconds):
                _, made = await self.loop.create_connection(lambda: Connection(address, self), *address)
        except (OSError, UnicodeError) as problem:  # a timeout is the one, a name that can't be a host's the other
            if isinstance(problem, OSError) and problem.errno in OURS:
                log.error("No connection to %s:%d: %s", *address, problem.strerror)  # noqa: TRY400 (no error of code)
                seeker.without_means()
            else:
                seeker.unreachable()
        else:
            seeker.connected(made)

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next request if its answer was read to the end and the engine agrees; else hang up."""
        connection.asker = None
        if connection.paused:  # its end came while the caller took no more
            connection.resume()
        if not (connection.complete and connection.reusable and not connection.closed):
            if connection.hung_up and connection.head is None:
                self._distrust(connection)
            connection.close()
            return
        if connection.doubtful:
            self._doubted.add(connection)
            self.loop.call_later(DOUBT_SECONDS, self._trust, connection)
            return
        now = self.clock()
        if self.fickle and now < self.fickle.get(connection.address, 0.0):
            connection.close()
            return
        connection.idle_since = now
        self._returned.append(connection)
        if len(self._returned) == 1:
            self.loop.call_soon(self._keep_returned)

    def _keep_returned(self) -> None:
        """Not before the loop's next turn: an engine that hangs up right behind its answer has done so by then."""
        returned, self._returned = self._returned, []
        for connection in returned:
            self.keep(connection, connection.idle_since)

    def _trust(self, connection: Connection) -> None:
        self._doubted.discard(connection)
        now = self.clock()
        if connection.sound() and now >= self.fickle.get(connection.address, 0.0):
            self.keep(connection, now)
        else:
            connection.close()

    def keep(self, connection: Connection, now: float) -> None:
        """Let it wait for its next request."""
        connection.idle_since = now
        waiting = self.idle.get(connection.address)
        if waiting is None:
            self.idle[connection.address] = [connection]
        else:
            waiting.append(connection)

    def linger(self, connection: Connection) -> None:
        """Read the end of an answer that nobody waits for: an engine that is cut off there calls it an error."""
        if connection.complete or connection.closed:
            self.give_back(connection)
            return
        connection.leave()
        self.leaving[connection] = self.clock() + LINGER_SECONDS

    def left(self, connection: Connection) -> None:
        """The end of one that lingered."""
        connection.leaving = False
        if self.leaving.pop(connection, None) is not None:
            self.give_back(connection)

    def sweep(self) -> None:
        """Hang up what waited too long."""
        now = self.clock()
        oldest = now - self.idle_seconds
        self.fickle = {address: until for address, until in self.fickle.items() if until > now}
        for connection in [one for one, until in self.leaving.items() if until < now]:
            del self.leaving[connection]
            connection.close()
        for address, waiting in list(self.idle.items()):
            kept = []
            for one in waiting:
                if one.idle_since > oldest and not one.closed:
                    kept.append(one)
                else:
                    one.close()
            if kept:
                self.idle[address] = kept
            else:
                del self.idle[address]

    def close(self) -> None:
        for waiting in [*self.idle.values(), list(self.leaving), self._returned, list(self._doubted)]:
            for one in waiting:
                one.close()
        for making in self._making:
            making.cancel()
        self.idle.clear()
        self.leaving.clear()

    def _distrust(self, connection: Connection) -> None:
        """An engine that hangs up right behind an answer, without having said so, would lose the next request
        every so often: a moment later, none could tell whether it had begun."""
        now = self.clock()
        if now - connection.idle_since < BEHIND_SECONDS:
            self.fickle[connection.address] = now + FICKLE_SECONDS
