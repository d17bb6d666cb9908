"""The gateway as a bare ASGI application: the only part that knows which server carries it."""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from gateway import errors
from gateway.admit import Request
from gateway.client import ClientLeft, Limits
from gateway.core import Gateway, refuse
from gateway.cors import Cors
from gateway.errors import Headers, Refusal
from gateway.keeper import Keeper
from gateway.relay import JSON

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
DISCARD_BYTES = 64 * 2**20
CLOSE: Headers = ((b"connection", b"close"),)


class App:
    """Routes ASGI's events to the gateway; `/healthz` is its own."""

    def __init__(self, gateway: Gateway, keeper: Keeper, cors: Cors | None = None) -> None:
        self.gateway = gateway
        self.keeper = keeper
        self.cors = cors or Cors()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        request = request_of(scope)
        origin = dict(scope["headers"]).get(b"origin")
        client = AsgiClient(request, receive, send, self.cors.headers(origin))
        preflight = self.cors.preflight(origin) if request.method == "OPTIONS" else None
        try:
            if preflight:
                await client.start(204, preflight)
                await client.end()
            elif request.path == "/healthz":
                await self._health(client, request)
            else:
                await self.gateway.handle(request, client)
        finally:
            client.unwatch()

    async def _health(self, client: "AsgiClient", request: Request) -> None:
        if request.method not in ("GET", "HEAD"):
            await refuse(client, errors.wrong_method(request.method, "GET"))
            return
        status, found = self.keeper.health()
        body = orjson.dumps(found)
        await client.start(status, (*JSON, (b"content-length", str(len(body)).encode())))
        await client.end(body)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.keeper.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.keeper.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


class AsgiClient:
    """A `gateway.client.Client` over ASGI's two calls.

    ASGI's `send` says nothing after a hang-up, so a task listens for it for as long as the answer takes.
    """

    def __init__(self, request: Request, receive: Receive, send: Send, extra: Headers = ()) -> None:
        self.request = request
        self.extra = extra  # on every answer
        self.receive = receive
        self.transmit = send
        self.started = False
        self.streaming = False
        self._watcher: asyncio.Task[None] | None = None

    async def body(self, limits: Limits) -> bytes | Refusal:
        request = self.request
        if request.expects_continue and (request.content_length or 0) > limits.body_bytes:
            return closing(errors.too_large(limits.body_bytes))  # it asked first, so it needn't send at all
        try:
            async with asyncio.timeout(limits.body_seconds):
                return await self._read(limits.body_bytes)
        except TimeoutError:
            what = f"The request body did not arrive within {limits.body_seconds:g} s."
            return closing(Refusal(408, "request_timeout", what))

    async def _read(self, limit: int) -> bytes | Refusal:
        """The body. Of one that is too long the rest is read and thrown away, within reason: a client that
        is still sending would otherwise see a reset instead of the answer."""
        parts: list[bytes] = []
        size, more = 0, True
        while more and size <= DISCARD_BYTES:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            part: bytes = message.get("body", b"")
            size, more = size + len(part), message.get("more_body", False)
            if size <= limit:
                parts.append(part)
            else:
                parts.clear()
        if size <= limit:
            return b"".join(parts)
        return errors.too_large(limit) if not more else closing(errors.too_large(limit))

    def watch(self, gone: Callable[[], None]) -> None:
        self._watcher = asyncio.create_task(self._watch(gone))

    async def _watch(self, gone: Callable[[], None]) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        gone()

    def unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self.streaming = any(value.startswith(b"text/event-stream") for _, value in headers)
        identified = [*headers, *self.extra, (b"x-request-id", self.request.request_id.encode())]
        await self.transmit({"type": "http.response.start", "status": status, "headers": identified})

    async def send(self, data: bytes) -> None:
        await self.transmit({"type": "http.response.body", "body": data, "more_body": True})

    async def ready(self) -> None:
        if self.started:
            await self.send(b"")  # waits as long as the server's buffer is full

    async def end(self, data: bytes = b"") -> None:
        self.unwatch()
        await self.transmit({"type": "http.response.body", "body": data})

    def abort(self) -> None:
        """ASGI's one way to cut an answer short: to return with it unfinished, which is what follows."""
        self.unwatch()


def closing(refusal: Refusal) -> Refusal:
    """The same, and the connection ends with it, because the rest of the request is not read."""
    return Refusal(refusal.status, refusal.code, refusal.message, refusal.type, refusal.param, CLOSE)


def request_of(scope: Scope) -> Request:
    """The request's head. The last of several headers of a name counts; ids that are no ids are replaced."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    length = headers.get(b"content-length", b"").decode("latin-1")
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return Request(
        method=scope["method"],
        path=scope["path"],
        host=headers.get(b"host", b"").decode("latin-1"),
        authorization=text(headers.get(b"authorization")),
        request_id=given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex,
        content_length=int(length) if length.isdecimal() else None,
        encoding=text(headers.get(b"content-encoding")),
        expects_continue=headers.get(b"expect", b"").lower() == b"100-continue",
    )


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
