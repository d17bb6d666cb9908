"""One request from its head to its last byte, over any server that can carry a `Client`.

The order of things here is the contract: decisions, body, an instance, its answer; the record before the
last byte; and one `finally` that lets go of everything however it ended.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import orjson

from gateway import errors
from gateway.admit import HEALTH, Admitted, Place, Request, admit, allowed, available, locate
from gateway.auth import UNKNOWN_KEY
from gateway.balance import Balancer
from gateway.client import Client, ClientLeft, Limits
from gateway.errors import Headers, Refusal
from gateway.exchange import CLIENT_LEFT, Exchange
from gateway.meter import Meter
from gateway.relay import JSON, Failed, Relay
from gateway.rewrite import Prepared, prepare
from gateway.routes import RouteTable, Upstream
from gateway.upstream import Connection, Lost, Pool, Refused

LOST = errors.upstream(502, "upstream_lost", "The instance was lost before its answer was whole.")
UNREACHABLE = errors.not_ready(
    "No instance of the endpoint takes connections right now.", code="no_instance_reachable", retry_after=2
)
ENCODED = Refusal(415, "unsupported_encoding", "Send the body without a Content-Encoding.")
DRAINED = 503
NO_BODY = Prepared(b"", {}, stream=False, wants_usage=False)


class Gateway:
    """The data plane's one state: who may call, where to, and what was counted."""

    def __init__(self, meter: Meter, balancer: Balancer, pool: Pool, limits: Limits | None = None) -> None:
        self.table = RouteTable()
        self.meter = meter
        self.balancer = balancer
        self.pool = pool
        self.limits = limits or Limits()
        self.look_again: Callable[[], Awaitable[None]] | None = None  # read keys anew; the keeper's

    async def handle(self, request: Request, client: Client) -> None:
        """Answer one request whole. What happens to it after admission is always counted, once."""
        place = locate(self.table, request.path, request.host)
        if place is None:
            known = ("/e/<endpoint>/v1/…", "/healthz")
            await refuse(client, errors.unknown_path(request.path, known))
        elif place.rest == HEALTH:
            await tell_health(client, place)
        else:
            admitted = admit(self.table, place, request.authorization, at=datetime.now(UTC))
            if isinstance(admitted, Refusal) and admitted.code == UNKNOWN_KEY and self.look_again is not None:
                admitted = await self._admit_anew(request, place, self.look_again)
            if isinstance(admitted, Refusal):
                await refuse(client, admitted)
            else:
                await self._exchange(request, client, admitted)

    async def _admit_anew(
        self, request: Request, place: Place, look_again: Callable[[], Awaitable[None]]
    ) -> Admitted | Refusal:
        """An unknown key may have been made since keys were last read, so that is not refused unseen."""
        await look_again()
        place = locate(self.table, request.path, request.host) or place
        return admit(self.table, place, request.authorization, at=datetime.now(UTC))

    async def _exchange(self, request: Request, client: Client, admitted: Admitted) -> None:
        exchange = Exchange(admitted, request.request_id, self.meter, self.balancer, self.pool)
        try:
            await self._serve(request, client, exchange)
        except Failed as failed:
            await fail(client, exchange, failed.refusal)
        except Lost:
            await fail(client, exchange, LOST)
        except ClientLeft:
            exchange.abandon()
        except asyncio.CancelledError:
            exchange.settle(CLIENT_LEFT if exchange.gone else DRAINED)  # the server's patience ran out
            raise
        finally:
            exchange.release()

    async def _serve(self, request: Request, client: Client, exchange: Exchange) -> None:
        route, rest = exchange.admitted.route, exchange.admitted.rest
        refusal = allowed(rest, request.method) or available(route)
        if refusal is None and request.encoding not in (None, "identity"):
            refusal = ENCODED
        if refusal is not None:
            raise Failed(refusal)
        prepared = await self._prepared(request, client, exchange)
        client.watch(exchange.abandon)
        instance, connection = await self._reach(exchange)
        connection.send(wire(request, rest, instance, prepared.body))
        await Relay(exchange, client, connection, prepared, self.limits).run()

    async def _prepared(self, request: Request, client: Client, exchange: Exchange) -> Prepared:
        if request.method == "GET":
            return NO_BODY
        body = await client.body(self.limits)
        if isinstance(body, Refusal):
            raise Failed(body)
        exchange.bytes_in = len(body)
        prepared = prepare(exchange.admitted.route, exchange.admitted.rest, body)
        if isinstance(prepared, Refusal):
            raise Failed(prepared)
        return prepared

    async def _reach(self, exchange: Exchange) -> tuple[Upstream, Connection]:
        """An instance with a connection to it. Those that refuse are passed over: nothing began there."""
        tried: set[str] = set()
        while (instance := exchange.choose(tried)) is not None:
            try:
                connection = await self.pool.acquire((instance.host, instance.port))
            except Refused:
                tried.add(instance.name)
                exchange.refused(instance)
                continue
            self.balancer.restore(instance.name)
            exchange.connection = connection
            if exchange.gone:
                raise ClientLeft
            return instance, connection
        raise Failed(UNREACHABLE)


def wire(request: Request, rest: str, instance: Upstream, body: bytes) -> bytes:
    """The request as an instance gets it. Of the client's headers only a checked request id goes along."""
    head = (
        f"{request.method} /{rest} HTTP/1.1\r\nhost: {instance.host}:{instance.port}\r\n"
        f"accept: application/json, text/event-stream\r\nx-request-id: {request.request_id}\r\n"
    )
    if request.method != "GET":
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def refuse(client: Client, refusal: Refusal) -> None:
    """An answer of our own, whole."""
    body = refusal.body()
    length: Headers = ((b"content-length", str(len(body)).encode()),)
    await client.start(refusal.status, JSON + length + refusal.headers)
    await client.end(body)


async def fail(client: Client, exchange: Exchange, refusal: Refusal) -> None:
    """End a request that can't be answered as asked: with a status, a last event, or a cut."""
    if exchange.gone:
        return
    await client.ready()
    streaming = client.started and client.streaming
    exchange.bytes_out += len(refusal.event() if streaming else refusal.body())
    exchange.settle(refusal.status)
    if not client.started:
        await refuse(client, refusal)
    elif streaming:
        await client.end(refusal.event())
    else:
        client.abort()


async def tell_health(client: Client, place: Place) -> None:
    """Whether the endpoint can be called now; needs no key and says nothing but its state."""
    if place.route is None:
        await refuse(client, errors.unknown_endpoint(place.name))
        return
    ready = bool(place.route.ready) and place.route.desired == "running"
    body = orjson.dumps({"status": "ready" if ready else place.route.state})
    length = (b"content-length", str(len(body)).encode())
    await client.start(200 if ready else 503, (*JSON, length, (b"cache-control", b"no-store")))
    await client.end(body)
