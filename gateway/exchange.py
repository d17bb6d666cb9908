"""One admitted request from its first byte to its record. It knows no transport: whoever carries the bytes
tells it what happened, and everything it holds is let go of in one place."""

import logging
from collections.abc import Callable, Collection
from time import perf_counter_ns

from gateway.admit import Admitted
from gateway.balance import Balancer
from gateway.meter import Meter
from gateway.routes import Upstream
from gateway.totals import Record
from gateway.upstream import Connection, Pool
from gateway.usage import NOTHING, Usage

log = logging.getLogger("gateway.access")
CLIENT_LEFT = 499
BROKEN = 500


class Exchange:
    """`tokens` is asked once, when the record is written; `gone` says that the client has left."""

    def __init__(self, admitted: Admitted, request_id: str, meter: Meter, balancer: Balancer, pool: Pool) -> None:
        self.admitted = admitted
        self.request_id = request_id
        self.meter = meter
        self.balancer = balancer
        self.pool = pool
        self.started = perf_counter_ns()
        self.instance: Upstream | None = None
        self.connection: Connection | None = None
        self.tokens: Callable[[], Usage] = lambda: NOTHING
        self.ttft_us: int | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.gone = False
        self.settled: int | None = None

    def choose(self, tried: Collection[str]) -> Upstream | None:
        """Take an instance that was not tried yet, counted as busy from here; None when there is none left."""
        self.instance = self.balancer.take(self.admitted.route.ready, tried=tried)
        return self.instance

    def refused(self, instance: Upstream) -> None:
        """The chosen instance took no connection: nothing began there, and others should not try it now."""
        self.balancer.eject(instance.name)
        self.balancer.release(instance.name)
        self.instance = None

    def abandon(self) -> None:
        """The client has left: hang up on the instance now, which wakes whoever waits for it."""
        self.gone = True
        if self.connection is not None:
            self.connection.close()

    def first_token(self) -> None:
        if self.ttft_us is None:
            self.ttft_us = self.elapsed_us()

    def elapsed_us(self) -> int:
        return (perf_counter_ns() - self.started) // 1000

    def settle(self, status: int) -> None:
        """Write the record; the first call counts. To be called just before the answer's last byte leaves."""
        if self.settled is not None:
            return
        self.settled = status
        route, usage = self.admitted.route, self.tokens()
        revision_id = self.instance.revision_id if self.instance is not None else 0
        record = Record(
            at=self.meter.now(),
            endpoint_id=route.endpoint_id,
            revision_id=revision_id or route.revision_id,
            key_id=self.admitted.key.id,
            status=status,
            latency_us=self.elapsed_us(),
            ttft_us=self.ttft_us,
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            estimated=usage.estimated,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )
        self.meter.record(record)
        if status >= 400:
            log.info("%s %s", self.request_id, record)

    def release(self) -> None:
        """The end of every path: a record if there is none yet, and nothing held.

        A connection whose answer was read whole is kept for the next.
        """
        self.settle(CLIENT_LEFT if self.gone else BROKEN)
        if self.connection is not None:
            self.pool.give_back(self.connection)
            self.connection = None
        if self.instance is not None:
            self.balancer.release(self.instance.name)
            self.instance = None
