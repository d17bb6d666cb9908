"""One admitted request from its body to its record.

Nothing waits in here: each step ends by asking for the next thing (the body, an instance, a connection, the
answer), and whoever has it calls back. However it ends, the record is written just before the answer's last byte
leaves, and everything held is let go of in one place.
"""

import logging
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING

from gateway import auth, errors
from gateway.admit import Admitted
from gateway.answer import LONG, STREAM, Answer, answer_to, tokens_in
from gateway.bodies import Bodies
from gateway.client import Client
from gateway.contract import Taken
from gateway.ended import Ended
from gateway.errors import Headers, Refusal
from gateway.rewrite import NO_BODY, prepare
from gateway.routes import Upstream
from gateway.totals import Record
from gateway.upstream import Connection
from gateway.usage import NOTHING, Usage, made

if TYPE_CHECKING:
    from gateway.core import Gateway

log = logging.getLogger("gateway")
CLIENT_LEFT = 499
HEARTBEAT = b": heartbeat\n\n"
LOST = errors.upstream(502, "upstream_lost", "The instance was lost before its answer was whole.")
SILENT = errors.upstream(504, "upstream_timeout", "The instance was silent for too long and was given up.")
BUSY = errors.not_ready("The gateway has no connection left. Try again.", code="gateway_busy", retry_after=1)
BROKEN = Refusal(500, "internal_error", "The gateway failed at this request.", type="api_error")
DRAINED = errors.not_ready("The gateway is ending. Send the request again.", code="gateway_ending", retry_after=1)
NOTHING_OF_IT = frozenset({DRAINED.code, BROKEN.code, BUSY.code, LONG.code})  # is said of the instance by these
JSON = b"application/json"
UNTRIED: frozenset[str] = frozenset()


class Exchange:
    """An owner of its client's call, an asker of its connection, a seeker of the pool, a waiter for its turn."""

    def __init__(self, gateway: "Gateway", client: Client, admitted: Admitted) -> None:
        self.gateway = gateway
        self.client = client
        self.admitted = admitted
        self.prepared = NO_BODY
        self.instance: Upstream | None = None
        self.connection: Connection | None = None
        self.answer: Answer | None = None
        self.tokens: Callable[[], Usage] | None = None  # asked once, when the record is written
        self._whole: bytes | None = None  # the answer, where it came in one
        self.taken: Taken | None = None  # of its limits
        self.over = False
        self.gone = False  # the caller is
        self.turn = gateway.turn  # of the table by which the caller was last looked at
        self.code = ""  # of a refusal of ours
        self.cold = False
        self.bytes_in = 0
        self.bytes_out = 0
        self.queued_at = 0  # ns, while it waits for its turn
        self.queue_us = 0
        self.connecting_at = 0
        self.connect_us = 0
        self.first_byte_us: int | None = None
        self.ttft_us: int | None = None
        self.tried = UNTRIED
        self.bodies: Bodies | None = None  # that are written along
        self._last: Callable[[], None] | None = None  # how it ends, once the caller takes more
        self._settled: int | None = None  # its status
        self.started = perf_counter_ns()
        self.heard = gateway.clock()  # when something last went to the caller or came from the instance
        self.silent_since = self.heard

    # ── on the way to an instance ────────────────────────────────────────────────────────────────
    def begin(self) -> None:
        refusal = self.admitted.refusal
        if refusal is not None:
            self.fail(refusal)
        elif self.client.request.method == "GET":
            if self.admitted.limited:
                self.gateway.limit(self)
            else:
                self.place()
        else:
            self._take_body()

    def body_came(self) -> None:
        self._guarded(self._take_body)

    def _take_body(self) -> None:
        client = self.client
        body = client.body(self.gateway.limits)
        if body is None:
            return
        if isinstance(body, Refusal):
            self.fail(body)
            return
        self.bytes_in = len(body)
        prepared = prepare(self.admitted.route, self.admitted.rest, body)
        if isinstance(prepared, Refusal):
            self.fail(prepared)
        else:
            self.prepared = prepared
            if self.admitted.limited:
                self.gateway.limit(self)
            else:
                self.place()

    def limited(self, found: Taken | Refusal) -> None:
        """What the limits say."""
        if isinstance(found, Refusal):
            self.fail(found)
        elif self.over:
            found.settle(0)
        else:
            self.taken = found
            self.place()

    def place(self) -> None:
        """Ask for an instance."""
        found = self.gateway.dispatch.ask(self.admitted.route, self, self.tried)
        if isinstance(found, Upstream):
            self.instance = found
            self._reach(found)
        elif found is None:
            self.queued_at = perf_counter_ns()
            self.cold = not self.admitted.route.ready
        else:
            self.fail(found)

    def placed(self, instance: Upstream) -> None:
        self.queue_us += (perf_counter_ns() - self.queued_at) // 1000
        self.instance = instance
        self._guarded(lambda: self._reach(instance))

    def turned_away(self, refusal: Refusal) -> None:
        self.queue_us += (perf_counter_ns() - self.queued_at) // 1000
        self._guarded(lambda: self.fail(refusal))

    def _reach(self, instance: Upstream) -> None:
        pool = self.gateway.pool
        connection = pool.waiting(instance.address)
        if connection is not None:
            self._ask(connection, instance)
        else:
            self.connecting_at = perf_counter_ns()
            pool.connect(instance.address, self)

    def connected(self, connection: Connection) -> None:
        self.connect_us += (perf_counter_ns() - self.connecting_at) // 1000
        instance = self.instance
        if self.over or instance is None:
            self.gateway.pool.keep(connection, self.gateway.clock())
        else:
            self._guarded(lambda: self._ask(connection, instance))

    def without_means(self) -> None:
        self.fail(BUSY)

    def unreachable(self) -> None:
        """Nothing began there, so another instance may be asked."""
        self.connect_us += (perf_counter_ns() - self.connecting_at) // 1000
        instance, self.instance = self.instance, None
        if instance is not None:
            self.tried |= {instance.name}
            self.gateway.dispatch.refused(self.admitted.route, instance)
            self._guarded(self.place)

    def _ask(self, connection: Connection, instance: Upstream) -> None:
        self.connection = connection
        self.silent_since = self.heard = self.gateway.clock()
        client, body = self.client, self.prepared.body
        if client.request.method == "GET":
            wire = b"GET /%b HTTP/1.1\r\nhost: %b\r\naccept: application/json\r\nx-request-id: %b\r\n\r\n" % (
                self.admitted.rest.encode(),
                instance.authority,
                client.request_id,
            )
        else:
            length = str(len(body)).encode()
            wire = (
                b"POST /%b HTTP/1.1\r\nhost: %b\r\naccept: application/json, text/event-stream\r\n"
                b"x-request-id: %b\r\ncontent-type: application/json\r\ncontent-length: %b\r\n\r\n%b"
            ) % (self.admitted.rest.encode(), instance.authority, client.request_id, length, body)
        connection.send(wire, self)
        awake = self.gateway.awake
        awake.expect(awake.answer)

    # ── the answer ───────────────────────────────────────────────────────────────────────────────
    def came(self) -> None:
        """Something of the answer is there."""
        try:
            connection, answer = self.connection, self.answer
            if connection is None or self.over or self._last is not None or (head := connection.head) is None:
                return
            if answer is None:
                self.first_byte_us = (perf_counter_ns() - self.started) // 1000
                awake = self.gateway.awake
                awake.met(awake.answer)
                if connection.complete and head.status == 200 and not (head.streams or self.client.started):
                    self._came_whole(head.kind, connection.take())
                    return
                answer = self.answer = answer_to(self, head)
            self.silent_since = self.heard = self.gateway.clock()
            data = connection.take()
            if data or connection.complete:
                answer.take(data, connection.complete)
        except Exception as failure:  # noqa: BLE001
            self.broke(failure)

    def _came_whole(self, kind: bytes, body: bytes) -> None:
        """What nearly every answer is that is no stream: a body that came in one."""
        most = self.admitted.route.admission.max_response_bytes
        if most is not None and len(body) > most:
            self.fail(LONG)
            return
        self._whole = body
        self.answer_whole(200, kind, body)

    def lost(self) -> None:
        self._guarded(lambda: self.fail(LOST))

    def send(self, data: bytes) -> None:
        """A part of the answer; the instance waits while the caller takes no more."""
        self.bytes_out += len(data)
        if self.client.send(data) and self.connection is not None:
            self.connection.pause()

    def start(self, headers: Headers) -> None:
        self.client.start(200, (*headers, *self.told()))

    def start_stream(self) -> None:
        if not self.client.started:
            self.start(STREAM)

    def told(self) -> Headers:
        """What the answer says of the way to it."""
        said: Headers = ()
        if self.queued_at:
            waited_us = self.queue_us or (perf_counter_ns() - self.queued_at) // 1000
            said += ((b"x-queue-ms", b"%d" % (waited_us // 1000)),)
        if self.cold:
            said += ((b"x-cold-start", b"1"),)
        return said + self.taken.headers if self.taken is not None else said

    @property
    def goes_on(self) -> bool:
        """Whether more of the answer may be passed on."""
        return not self.over and self._last is None

    def first_token(self) -> None:
        if self.ttft_us is None:
            self.ttft_us = self.elapsed_us()

    # ── what happens to the caller ───────────────────────────────────────────────────────────────
    def caller_left(self) -> None:
        """Hang up on the instance now: this is what ends its work."""
        self.gone = True
        if not self.over:
            self._guarded(lambda: self.settle(CLIENT_LEFT))
        if not self.over:
            self.release()

    def caller_ready(self) -> None:
        last = self._last
        if last is not None:
            self._guarded(last)
        elif self.connection is not None:
            self.connection.resume()

    def cut(self) -> None:
        """The gateway's patience is over."""
        if not self.over:
            self.code = DRAINED.code
            self.settle(DRAINED.status)
            if not self.client.started:
                self._refuse(DRAINED)
            else:
                self.client.abort()
            self.release()

    def look(self, now: float) -> None:
        """A stream's caller hears a heartbeat in every silence; an instance silent for too long is given up."""
        if self.turn != self.gateway.turn:
            self._look_at_caller()
        limits = self.gateway.limits
        if self.over or self.client.full or now - self.heard < limits.heartbeat_seconds:
            return
        if self.connection is not None and now - self.silent_since >= limits.silence_seconds:
            self._guarded(lambda: self.fail(SILENT))
        elif self.client.started and not self.client.streaming:
            return  # into JSON goes nothing
        elif self.prepared.stream and (self.connection is not None or self.queued_at):
            self.heard = now
            self.start_stream()
            self.client.send(HEARTBEAT)

    def _look_at_caller(self) -> None:
        """The world has changed: whose key was taken back gets no more. A key's own end, and the endpoint's stop,
        end nothing that began before."""
        self.turn = self.gateway.turn
        refusal = auth.withdrawn(self.gateway.table, self.admitted.key, self.admitted.route)
        if refusal is not None and not self.over:
            self._guarded(lambda: self.fail(refusal))

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────
    def finish(self, status: int, data: bytes) -> None:
        """The answer's last part. It waits until the caller has taken what came before: who leaves instead did
        not get it."""
        if self.client.full:
            self._end_later(lambda: self._finish(status, data))
        else:
            self._finish(status, data)

    def _finish(self, status: int, data: bytes) -> None:
        self._last = None
        self.bytes_out += len(data)
        self.settle(status)
        self.client.end(data)
        self.release()

    def answer_whole(self, status: int, kind: bytes, body: bytes, headers: Headers = ()) -> None:
        """An answer that was not begun yet, in one."""
        self.bytes_out += len(body)
        self.settle(status)
        lines = b""
        if self.queued_at:
            headers += self.told()
        elif self.taken is not None:
            lines = self.taken.lines()
        self.client.answer(status, kind, body, headers, lines)
        self.release()

    def fail(self, refusal: Refusal) -> None:
        """End a request that can't be answered as asked: with a status, a last event, or a cut."""
        if self.over or self._last is not None:
            return
        if self.client.full:
            self._end_later(lambda: self._fail(refusal))
        else:
            self._fail(refusal)

    def _end_later(self, last: Callable[[], None]) -> None:
        """Whatever comes of the instance until then changes nothing."""
        self._last = last
        if self.connection is not None:
            self.connection.pause()

    def _fail(self, refusal: Refusal) -> None:
        self._last, self.code = None, refusal.code
        client = self.client
        streaming = client.started and client.streaming
        self.bytes_out += len(refusal.event() if streaming else refusal.body())
        self.settle(refusal.status)
        if not client.started:
            self._refuse(refusal)
        elif streaming:
            client.end(refusal.event())
        else:
            client.abort()
        self.release()

    def _refuse(self, refusal: Refusal) -> None:
        self.client.answer(refusal.status, JSON, refusal.body(), refusal.headers + self.told())

    def _guarded(self, step: Callable[[], None]) -> None:
        """Whatever goes wrong in a step, this request ends by it and no other."""
        try:
            step()
        except Exception as failure:  # noqa: BLE001
            self.broke(failure)

    def broke(self, failure: Exception) -> None:
        """An error of ours: it is told where errors are read, and the request ends by it."""
        log.error("A request failed", exc_info=failure)
        self._last = self.tokens = self._whole = None
        if not self.over:
            self.code = BROKEN.code
            self.settle(BROKEN.status)
            self.client.abort()
            self.release()

    # ── the record ───────────────────────────────────────────────────────────────────────────────
    def elapsed_us(self) -> int:
        return (perf_counter_ns() - self.started) // 1000

    def settle(self, status: int) -> None:
        """Write the record; the first call counts. To be called just before the answer's last byte leaves."""
        if self._settled is not None:
            return
        usage = self._usage()
        self._settled = status
        route, instance, meter = self.admitted.route, self.instance, self.gateway.meter
        client = self.client
        record = made(
            Record,
            (
                meter.now(),
                route.endpoint_id,
                (instance.revision_id if instance is not None else 0) or route.revision_id,
                self.admitted.key.id,
                status,
                self.elapsed_us(),
                self.ttft_us,
                usage.prompt,
                usage.completion,
                usage.estimated,
                self.bytes_in,
                self.bytes_out,
            ),
        )
        ended = made(
            Ended,
            (
                record,
                client.request_id.decode(),
                client.request.method,
                self.admitted.rest,
                instance.name if instance is not None else "",
                self.code,
                self.prepared.stream,
                self.cold,
                self.queue_us,
                self.connect_us,
                self.first_byte_us,
                "" if self.gateway.address_of is None else self.gateway.address_of(client),
                self.bodies,
            ),
        )
        meter.record(ended)
        if self.taken is not None:
            self.taken.settle(usage.prompt + usage.completion)

    def _usage(self) -> Usage:
        if self._whole is not None:
            return tokens_in(self._whole, self.prepared.request)
        return self.tokens() if self.tokens is not None else NOTHING

    def release(self) -> None:
        """The end of every path: nothing is held after it, and the line's next request may begin."""
        self.over = True
        awake = self.gateway.awake
        awake.calls -= 1
        awake.expect(awake.request)
        self.answer = self.tokens = self._whole = None
        gateway, route = self.gateway, self.admitted.route
        connection, instance, self.connection = self.connection, self.instance, None
        if connection is not None:
            connection.chunks = None
            if connection.complete and not self.gone:
                gateway.pool.give_back(connection)
            elif self.gone or self._settled != 200:
                self._hang_up(connection)
            else:
                gateway.pool.linger(connection)
        if instance is not None:
            self.instance = None
            gateway.dispatch.done(route, instance, sound=self._sound())
        elif self.queued_at:
            gateway.dispatch.leave(self)
        self.client.over()

    def _hang_up(self, connection: Connection) -> None:
        if connection.complete:
            self.gateway.pool.give_back(connection)
        else:
            connection.asker = None
            if connection.hung_up and connection.head is None:
                self.gateway.pool.give_back(connection)
            connection.close()

    def _sound(self) -> bool | None:
        """What this request says of its instance."""
        if self.gone or self.code in NOTHING_OF_IT:
            return None
        return self._settled is not None and self._settled < 500
