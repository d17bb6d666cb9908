"""What a gateway tells of itself and of each request: metrics, a log, and passports of the remarkable ones.

It is one of the meter's listeners, so it costs a request nothing before its last byte has left.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway import access_log
from gateway.access_log import AccessLog, Mode
from gateway.callers import address_of
from gateway.contract import Store
from gateway.core import Gateway
from gateway.ended import Ended
from gateway.metrics import Duty, Metrics, Now
from gateway.passport import Passport, Passports
from gateway.routes import RouteTable

BEAT_SECONDS = 0.5


@dataclass(frozen=True)
class Options:
    """What the installation wishes: METRICS_TOKEN, ACCESS_LOG, ACCESS_LOG_FILE, ACCESS_LOG_ADDRESSES; and how
    many proxies stand in front, TRUSTED_PROXIES."""

    metrics_token: str = ""
    access_log: str = Mode.OFF
    access_log_file: str = ""
    addresses: bool = False
    proxies: int = 0


class Telemetry:
    def __init__(self, gateway: Gateway, options: Options | None = None) -> None:
        options = options or Options()
        self.gateway = gateway
        self.metrics = Metrics(options.metrics_token, proxied=options.proxies > 0)
        self.log = AccessLog(
            Mode(options.access_log), access_log.to(options.access_log_file), addresses=options.addresses
        )
        self.passports = Passports()
        self._names: dict[int, str] = {}
        self._named: RouteTable | None = None
        self._beat: asyncio.TimerHandle | None = None
        gateway.meter.listeners.append(self.fold)
        gateway.proxies = options.proxies
        if options.addresses:
            gateway.address_of = lambda client: address_of(
                client.peer, client.request.headers.get(b"x-forwarded-for"), proxies=options.proxies
            )

    def start(self) -> None:
        """Begin to send log lines, and to watch how late the running event loop is."""
        loop = asyncio.get_running_loop()

        def beat(due: float) -> None:
            self.metrics.late(max(0.0, loop.time() - due))
            self.log.send()
            again = loop.time() + BEAT_SECONDS
            self._beat = loop.call_at(again, beat, again)

        beat(loop.time())

    def stop(self) -> None:
        """After the last request was folded: end the beat, and the log with what it still holds."""
        if self._beat is not None:
            self._beat.cancel()
        self.log.close()

    def fold(self, batch: Sequence[Ended]) -> None:
        """Take in what has ended since the last time."""
        self.metrics.fold(batch)
        self.log.fold(batch, self.names())
        self.passports.fold(batch)

    async def flush(self, store: Store) -> None:
        """Have remembered requests written. Raises Away; then they are written the next time."""
        await self._flush(store, self.passports.take(self.gateway.meter.now()))

    async def flush_all(self, store: Store) -> None:
        """The same at the end, when no minute runs on."""
        await self._flush(store, self.passports.take_all())

    async def _flush(self, store: Store, batch: list[Passport]) -> None:
        if not batch:
            return
        written = False
        try:
            await store.flush_passports(batch)
            written = True
        finally:
            if not written:
                self.passports.put_back(batch)  # whether it was written is unknown; again changes nothing

    def names(self) -> dict[int, str]:
        """Endpoints by id; one that is gone keeps its name for the requests that end after it."""
        table = self.gateway.table
        if table is not self._named:
            self._named = table
            self._names |= {route.endpoint_id: route.name for route in table.routes.values()}
        return self._names

    def page(self, duties: Sequence[Duty], connections: int) -> bytes:
        """The metrics as they stand."""
        gateway, meter = self.gateway, self.gateway.meter
        routes = gateway.table.routes
        unwritten = meter.unwritten()  # folds, so that what has ended counts below
        instances = (one.name for route in routes.values() for one in route.instances)
        return self.metrics.render(
            Now(
                source=meter.totals.source,
                routes=routes,
                in_flight=gateway.balancer.in_flight,
                ejected=[name for name in instances if gateway.balancer.is_ejected(name)],
                waiting=gateway.dispatch.queued,
                sockets=gateway.sockets,
                connections=connections,
                refused=gateway.refused,
                duties=duties,
                spool_failures=meter.spool.failures,
                unwritten_rows=unwritten,
                passports_dropped=self.passports.dropped,
            )
        )
