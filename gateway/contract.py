"""What the gateway asks of the world that is not traffic: facts in, counts out. Tests give it a memory."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from gateway.admit import Admitted
from gateway.buckets import Answer, Ask
from gateway.errors import Headers, Refusal
from gateway.passport import Passport
from gateway.routes import Key, Route, RouteTable
from gateway.totals import Rows

if TYPE_CHECKING:
    from gateway.core import Gateway


class Away(Exception):
    """The database or Valkey can't be reached now; what was asked is to be asked again later."""


class Taken(Protocol):
    """What a request took of its quotas."""

    @property
    def headers(self) -> Headers:
        """What the caller is told of them."""

    def lines(self) -> bytes:
        """The same as lines of a head, each with its end."""

    def settle(self, tokens: int) -> None:
        """Give the slot back and count what it really came to. Never raises; the first call counts."""


class Limiter(Protocol):
    """Judges requests of keys and endpoints with quotas: all of them are checked before any is taken from."""

    def take_now(self, key: Key, route: Route, tokens: int) -> Taken | Refusal | None:
        """The judgement, or None where others have to be asked for it."""

    async def take(self, key: Key, route: Route, tokens: int) -> Taken | Refusal:
        """The judgement, soon."""


class Counts(Protocol):
    """The count of limits that gateways share."""

    async def exchange(self, ask: Ask) -> Answer:
        """See `gateway.buckets`. Raises Away; a call that is lost or cancelled may have been done."""

    async def close(self) -> None: ...


class Store(Protocol):
    counts: Counts  # of limits

    async def load(self) -> RouteTable | None:
        """Routes and keys; None when nothing changed since the last load. Raises Away."""

    async def flush(self, batch: Sequence[Rows], used: Mapping[int, float]) -> None:
        """Write rows, each replacing the row of its key and source, and when keys were last used (key id to
        seconds since 1970). All or nothing is not asked: writing again changes nothing. Raises Away."""

    async def flush_passports(self, batch: Sequence[Passport]) -> None:
        """Remember these requests; one that was written already gets what is new of it. Raises Away."""

    async def publish(self, source: str, tick: bytes) -> None:
        """Show what goes on now (the shape is in `gateway.tick`) for five seconds. Raises Away."""

    async def wake(self, endpoint_id: int) -> None:
        """Want an instance of an endpoint that is scaled to zero, because it was called. Asking again changes
        nothing. Raises Away."""

    def listen(self) -> AsyncIterator[None]:
        """Yield once when listening begins (a ring may have been missed) and once per ring: routes or keys
        changed. Raises Away."""

    async def close(self) -> None: ...


class Jobs(Protocol):
    """Requests that are queued, and what runs them."""

    async def answer(
        self, admitted: Admitted, method: str, rest: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> tuple[int, Headers, bytes]:
        """Status, headers but for the type, and JSON, for a call whose `rest` begins with v1/async/."""

    def start(self, gateway: "Gateway", source: str, draining: Callable[[], bool]) -> None:
        """Begin to run what is queued; `source` is how this gateway is called in its ticks. Once `draining`,
        nothing more is begun."""

    @property
    def busy(self) -> bool:
        """Whether something is being run."""

    async def stop(self) -> None:
        """Queue again what still runs, and let go of everything. Never raises Away."""
