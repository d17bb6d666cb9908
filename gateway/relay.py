"""An instance's answer on its way to the caller: JSON or a stream, an error, or its loss halfway."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson

from gateway import errors
from gateway.client import Client, Limits
from gateway.errors import Headers, Refusal
from gateway.exchange import Exchange
from gateway.rewrite import Prepared
from gateway.sse import EventFilter
from gateway.upstream import Connection, Head, Lost
from gateway.usage import NOTHING, Usage, delivered_chars, estimated, prompt_chars, usage_of

T = TypeVar("T")

JSON: Headers = ((b"content-type", b"application/json"),)
STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
HEARTBEAT = b": heartbeat\n\n"
READ_FOR_USAGE = 4 * 2**20
ERROR_BYTES = 256 * 1024
LINGER_SECONDS = 1.0
EMPTY = errors.upstream(502, "empty_stream", "The instance ended its stream without a single event.")
ODD = errors.upstream(502, "upstream_error", "The instance's answer is not one that this gateway understands.")
SILENT = errors.upstream(504, "upstream_timeout", "The instance was silent for too long and was given up.")


class Failed(Exception):
    """The request ends with this refusal: as a real status, or as a stream's last event."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Relay:
    """Carries one answer. The record is written before the last byte of whatever ends it."""

    def __init__(
        self, exchange: Exchange, client: Client, connection: Connection, prepared: Prepared, limits: Limits
    ) -> None:
        self.exchange = exchange
        self.client = client
        self.connection = connection
        self.prepared = prepared
        self.limits = limits

    async def run(self) -> None:
        """Raises Failed, and Lost when the instance or the caller hung up."""
        head = await self._patiently(self.connection.answer)
        if head.status >= 400:
            await self._engine_error(head)
        elif head.status >= 300:
            raise Failed(ODD)
        elif head.content_type == b"text/event-stream":
            await self._stream()
        elif self.client.started:
            raise Failed(ODD)  # a heartbeat said that a stream would follow, and none does
        else:
            await self._whole(head)

    # ── streams ──────────────────────────────────────────────────────────────────────────────────
    async def _stream(self) -> None:
        events = EventFilter(keep_usage=self.prepared.wants_usage)
        self.exchange.tokens = lambda: self._streamed_tokens(events)
        while data := await self._patiently(self.connection.read):
            try:
                out = events.feed(data)
            except ValueError as wrong:
                raise Failed(ODD) from wrong
            if await self._pass_on(events, out):
                return
        if await self._pass_on(events, events.close()):
            return
        if not events.events:
            raise Failed(EMPTY)
        await self._finish(200, b"")  # whole by its framing: some engines leave [DONE] out

    async def _pass_on(self, events: EventFilter, out: bytes) -> bool:
        """Send what the filter let through; True when that was the end."""
        if events.events:
            self.exchange.first_token()
        if events.error is not None:
            if not self.client.started and not events.events:
                raise Failed(events.error)
            await self._start_stream()
            await self._finish(events.error.status, out)
            return True
        if events.done:
            if not events.events:
                raise Failed(EMPTY)
            await self._start_stream()
            await self._finish(200, out)
            await self._linger()
            return True
        if out:
            await self._start_stream()
            self.exchange.bytes_out += len(out)
            await self.client.send(out)
        return False

    async def _start_stream(self) -> None:
        if not self.client.started:
            await self.client.start(200, STREAM)

    async def _linger(self) -> None:
        """Read the instance's own end, so that the connection can be used again."""
        try:
            while await self.connection.read(LINGER_SECONDS):
                pass
        except Lost:
            pass  # the caller has everything; the connection is simply not kept

    def _streamed_tokens(self, events: EventFilter) -> Usage:
        if events.usage is not None:
            return events.usage
        if not events.events:
            return NOTHING
        return estimated(prompt_chars=prompt_chars(self.prepared.request), completion_chars=events.chars)

    # ── answers in one piece ─────────────────────────────────────────────────────────────────────
    async def _whole(self, head: Head) -> None:
        """Pass a body on as it comes, one part behind: until the last part is known, 502 is still possible
        for what came in one."""
        copy, held = bytearray(), b""
        headers = self._headers(head)
        while data := await self._patiently(self.connection.read):
            if held:
                await self._send_part(headers, held)
            held = data
            if len(copy) <= READ_FOR_USAGE:
                copy += data
        self.exchange.tokens = lambda: self._whole_tokens(bytes(copy))
        if not self.client.started:
            await self.client.start(200, headers)
        await self._finish(200, held)

    async def _send_part(self, headers: Headers, part: bytes) -> None:
        if not self.client.started:
            await self.client.start(200, headers)
        self.exchange.bytes_out += len(part)
        await self.client.send(part)

    def _whole_tokens(self, body: bytes) -> Usage:
        if not self.prepared.request:
            return NOTHING  # the list of models costs no tokens
        try:
            found: Any = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = None
        answer = found if isinstance(found, dict) else {}
        return usage_of(answer.get("usage")) or estimated(
            prompt_chars=prompt_chars(self.prepared.request), completion_chars=delivered_chars(answer)
        )

    def _headers(self, head: Head) -> Headers:
        kind = head.headers.get(b"content-type", b"application/json")
        length = head.headers.get(b"content-length")
        return ((b"content-type", kind),) + (((b"content-length", length),) if length else ())

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────
    async def _engine_error(self, head: Head) -> None:
        body = bytearray()
        while len(body) < ERROR_BYTES and (data := await self._patiently(self.connection.read)):
            body += data
        text = errors.of_engine(head.status, bytes(body))
        if self.client.started:
            await self._finish(head.status, b"data: " + text + b"\n\n")
            return
        wait = head.headers.get(b"retry-after", b"2" if head.status == 503 else b"")
        length = (b"content-length", str(len(text)).encode())
        await self.client.start(head.status, (*JSON, length, *(((b"retry-after", wait),) if wait else ())))
        await self._finish(head.status, text)

    async def _finish(self, status: int, data: bytes) -> None:
        await self.client.ready()
        if self.exchange.gone:
            raise Lost("the caller hung up before the end")
        self.exchange.bytes_out += len(data)
        self.exchange.settle(status)
        await self.client.end(data)

    async def _patiently(self, read: Callable[[float], Awaitable[T | None]]) -> T:
        """Wait for the instance; a stream's caller hears a heartbeat in every silence."""
        silent = 0.0
        while (found := await read(self.limits.heartbeat_seconds)) is None:
            silent += self.limits.heartbeat_seconds
            if silent >= self.limits.silence_seconds:
                raise Failed(SILENT)
            if self.prepared.stream:
                await self._start_stream()
                await self.client.send(HEARTBEAT)
        return found
