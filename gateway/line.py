"""HTTP/1.1 towards callers: one asyncio Protocol a connection, parsed by httptools, one request at a time.

What a framework would have given is here: limits on heads and bodies and the time they take, pipelined
requests in their order with reading paused meanwhile, 100-continue, answers before the body's end, refusal
of what two parsers could read in two ways, and a write that waits while the caller does not read. A caller
that closes its side has left: the request ends, as behind nginx.
"""

import asyncio
import re
import uuid
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, cast

import httptools

from gateway import errors
from gateway.admit import Request
from gateway.client import ClientLeft, Limits
from gateway.errors import Headers, Refusal
from gateway.target import Unreadable, malformed, target_of, text, too_long, unreadable

if TYPE_CHECKING:
    from gateway.server import Server

HEAD_BYTES = 64 * 1024
AHEAD_BYTES = 16 * 1024  # of requests whose turn has not come
HEAD_SECONDS = 20.0  # from the first byte of a head to its end
IDLE_SECONDS = 75.0  # between two requests
LINGER_SECONDS = 5.0  # for the rest of a body that an early answer left unread
STALL_SECONDS = 60.0  # for a caller to take what is written, before it is cut off
NEVER = float("inf")
DISCARD_BYTES = 64 * 2**20
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
REASONS = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
PROCESS = uuid.uuid4().hex[:20]  # begins the ids of requests that came without one
_numbers = count()
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
NO_BODY_STATUS = (204, 304)
SINGLE = (b"host", b"transfer-encoding", b"authorization")  # of two, another reader might take the other


class Call:
    """One request and its answer: a `gateway.client.Client`."""

    def __init__(self, line: "Line", request: Request, headers: dict[bytes, bytes], *, version: str) -> None:
        self.line = line
        self.request = request
        self.headers = headers
        self.version = version
        self.keep = version == "1.1"
        self.started = False
        self.streaming = False
        self.ended = False
        self.complete = False  # the request's body is here whole
        self.size = 0  # of it, so far
        self.extra: Headers = ()  # on every answer
        self._got: bytes | bytearray = b""
        self._limit = line.server.app.gateway.limits.body_bytes  # holds before anybody asks for the body, too
        self._arrived: asyncio.Future[None] | None = None
        self._spoiled: Refusal | None = None
        self._gone: Callable[[], None] | None = None
        self._head = b""
        self._chunked = False
        self._mute = request.method == "HEAD"

    # ── what the line brings ─────────────────────────────────────────────────────────────────────
    def came(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= self._limit:
            if isinstance(self._got, bytearray):
                self._got += data
            else:  # most come in one; a list of many small parts would weigh more than they do
                self._got = bytearray(self._got + data) if self._got else data
        else:
            self._got = b""  # too long: the rest is read and thrown away
        if self.size > DISCARD_BYTES:
            self.wake()

    def whole(self) -> None:
        self.complete = True
        self.wake()

    def spoil(self, refusal: Refusal) -> None:
        """The rest of the body can't be read."""
        self._spoiled = refusal
        self.wake()

    def left(self) -> None:
        """The caller is gone."""
        self.wake()
        if self._gone is not None:
            gone, self._gone = self._gone, None
            gone()

    def wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # ── gateway.client.Client ────────────────────────────────────────────────────────────────────
    async def body(self, limits: Limits) -> bytes | Refusal:
        self._limit = limits.body_bytes
        if not self.complete:
            refusal = await self._arrival(limits)
            if refusal is not None:
                return refusal
        if self.size > limits.body_bytes:
            return errors.too_large(limits.body_bytes)
        got, self._got = self._got, b""
        return bytes(got)

    async def _arrival(self, limits: Limits) -> Refusal | None:
        """Wait for the rest of the body. Of one that is too long the rest is read and thrown away, within
        reason: a caller that is still sending would otherwise see a reset instead of the answer."""
        if self.request.expects_continue:
            if (self.request.content_length or 0) > limits.body_bytes:
                return errors.too_large(limits.body_bytes)  # it asked first, so it needn't send at all
            self.line.write(CONTINUE)
        if self._spoiled is not None:
            return self._spoiled
        self._arrived = self.line.loop.create_future()
        timer = self.line.loop.call_later(limits.body_seconds, self.wake)
        try:
            await self._arrived
        finally:
            timer.cancel()
        if self.line.closed:
            raise ClientLeft
        if self.complete or self._spoiled is not None:
            return self._spoiled
        if self.size > DISCARD_BYTES:
            return errors.too_large(limits.body_bytes)
        what = f"The request body did not arrive within {limits.body_seconds:g} s."
        return Refusal(408, "request_timeout", what)

    def watch(self, gone: Callable[[], None]) -> None:
        self._gone = gone
        if self.line.closed:
            self.left()

    async def start(self, status: int, headers: Headers) -> None:
        """Put the head together; it leaves with the first bytes of the body."""
        self.started = True
        parts = [b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, "Unknown").encode())]
        framed = status in NO_BODY_STATUS
        for name, value in (*headers, *self.extra):
            parts.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                framed = True
            elif name == b"content-type" and value.startswith(b"text/event-stream"):
                self.streaming = True
        if not self.complete or self.line.server.draining:
            self.keep = False
        if not framed and not self._mute:
            self._chunked = self.version == "1.1"
            self.keep &= self._chunked  # without a length and without chunks the end is the connection's
            if self._chunked:
                parts.append(b"transfer-encoding: chunked\r\n")
        if not self.keep:
            parts.append(b"connection: close\r\n")
        elif self.version == "1.0":
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"%bx-request-id: %b\r\n\r\n" % (self.line.server.date, self.request.request_id.encode()))
        self._mute |= status in NO_BODY_STATUS
        self._head = b"".join(parts)

    async def send(self, data: bytes) -> None:
        if data and not self._mute:
            frame = b"%b%x\r\n%b\r\n" % (self._head, len(data), data) if self._chunked else self._head + data
        else:
            frame = self._head
        self._head = b""
        if frame:
            self.line.write(frame)
        if self.line.full:
            await self.line.drain()

    async def ready(self) -> None:
        if self.line.full:
            await self.line.drain()

    async def end(self, data: bytes = b"") -> None:
        self.ended, self._gone = True, None
        if self._mute:
            data = b""
        if self._chunked:
            data = b"%x\r\n%b\r\n%b" % (len(data), data, LAST_CHUNK) if data else LAST_CHUNK
        self.line.write(self._head + data)
        self._head = b""

    def abort(self) -> None:
        self._gone = None
        self.keep = False


class Line(asyncio.Protocol):
    """One caller's connection. `deadline` is when it has been quiet for too long, in the loop's time."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.loop = server.loop
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpRequestParser(self)
        self.closed = False
        self.full = False  # the caller takes no more at the moment
        self.lingering = False
        self.deadline = self.loop.time() + IDLE_SECONDS
        self.call: Call | None = None  # being answered
        self.task: asyncio.Task[None] | None = None
        self.waiting: deque[Call] = deque()  # whose turn has not come
        self.arriving: Call | None = None  # whose body is still coming
        self.broken: Refusal | None = None  # nothing after this can be read
        self._ahead = 0  # bytes of requests that came before their turn
        self._unread = b""  # what came behind those
        self._head_bytes = 0  # that came since the last byte of a body: of a head, of trailers or extensions
        self._drained: asyncio.Future[None] | None = None
        self._new_head()

    def _new_head(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._in_head = False

    # ── for the event loop ───────────────────────────────────────────────────────────────────────
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by behaviour only
        # Every write goes to the kernel at once: uvloop would else gather them until the loop's next turn,
        # and a kill in between would leave answers counted that nobody got.
        self.transport.set_write_buffer_limits(high=0)
        self.server.lines.add(self)

    def data_received(self, data: bytes) -> None:
        if len(data) <= AHEAD_BYTES:
            self._take(data)
            return
        for at in range(0, len(data), AHEAD_BYTES):
            if self._ahead > AHEAD_BYTES:
                self._unread = data[at:]
                break
            self._take(data[at : at + AHEAD_BYTES])

    def _take(self, data: bytes) -> None:
        if self.lingering or self.broken is not None:
            return
        self._head_bytes += len(data)
        try:
            self._feed(data)
            if self._head_bytes > HEAD_BYTES and (self._in_head or self.arriving is not None):
                raise too_long(HEAD_BYTES)
        except Unreadable as problem:
            self.broken = problem.refusal
        except httptools.HttpParserError as problem:
            cause = problem.__context__
            self.broken = cause.refusal if isinstance(cause, Unreadable) else malformed(problem)
        if self.broken is not None and self.arriving is not None:
            self.arriving.spoil(self.broken)
        if self.call is None and not self.full:
            self._next()
        if self.waiting:
            self._ahead += len(data)
            if self._ahead > AHEAD_BYTES and self.transport is not None:
                self.transport.pause_reading()  # not sooner: who does not read sees no hang-up either

    def eof_received(self) -> None:
        """The transport closes, and `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.server.lines.discard(self)
        self.waiting.clear()
        self.resume_writing()
        if self.arriving is not None:
            self.arriving.wake()
        if self.call is not None:
            self.call.left()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        elif self.call is None and self.transport is not None and not self.transport.is_closing():
            self.deadline = NEVER
            self._next()

    # ── for the call ─────────────────────────────────────────────────────────────────────────────
    def write(self, data: bytes) -> None:
        if not self.closed and self.transport is not None:
            self.transport.write(data)

    async def drain(self) -> None:
        """Return once the caller takes more, or is gone. One that takes nothing for too long is cut off."""
        self._drained = self.loop.create_future()
        timer = self.loop.call_later(STALL_SECONDS, self.cut)
        try:
            await self._drained
        finally:
            timer.cancel()

    # ── for the parser ───────────────────────────────────────────────────────────────────────────
    def on_message_begin(self) -> None:
        self._new_head()
        self._in_head = True
        if self.call is None:
            self.deadline = self.loop.time() + HEAD_SECONDS

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.arriving is not None:
            return  # a trailer, which nothing here needs
        name = name.lower()
        if name in self._headers:
            if name in SINGLE:
                what = f"There is more than one {name.decode().title()} header."
                raise unreadable(400, "invalid_request", what)
            if name == b"connection":
                value = self._headers[name] + b"," + value
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_bytes > HEAD_BYTES and self._head_size() > HEAD_BYTES:
            raise too_long(HEAD_BYTES)
        if self.parser.should_upgrade():
            return  # fed again without the wish, see `_feed`
        self.arriving = self._called()
        self.waiting.append(self.arriving)

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self.arriving is not None:
            self.arriving.came(body)

    def on_message_complete(self) -> None:
        if self.arriving is not None:
            self.arriving.whole()
            self.arriving = None
        self._head_bytes = 0

    def _head_size(self) -> int:
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers.items())

    def _feed(self, data: bytes) -> None:
        """Parse. A wish to change the protocol is passed over, as HTTP allows: the same request is fed again
        without it, because the parser leaves the body of such a request unread."""
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as wish:
                data = self._without_wish() + data[wish.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
            else:
                break

    def _without_wish(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise unreadable(405, "method_not_allowed", "CONNECT is not served here.")
        kept = {k: v for k, v in self._headers.items() if k not in (b"upgrade", b"http2-settings")}
        kept[b"connection"] = b",".join(
            token
            for token in kept[b"connection"].split(b",")
            if token.strip().lower() in (b"close", b"keep-alive")
        )
        lines = b"".join(b"%b: %b\r\n" % header for header in kept.items())
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self._url, version, lines)

    def _called(self) -> Call:
        """The request whose head is whole. Raises Unreadable."""
        version, headers = self.parser.get_http_version(), self._headers
        if version not in ("1.1", "1.0"):
            raise unreadable(505, "http_version", f"HTTP/{version} is not spoken here; use HTTP/1.1.")
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (version == "1.0" or coding.lower().strip() != b"chunked"):
            raise unreadable(501, "transfer_encoding", "The only Transfer-Encoding that is taken is chunked.")
        if version == "1.1" and b"host" not in headers:
            raise unreadable(400, "invalid_request", "The Host header is missing.")
        try:
            path, host = target_of(self._url)
        except httptools.HttpParserInvalidURLError:
            raise unreadable(400, "invalid_url", "The request's target is no URL.") from None
        host = headers.get(b"host", b"") if host is None else host
        length = headers.get(b"content-length", b"").decode("latin-1")
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request = Request(
            method=self.parser.get_method().decode("latin-1"),
            path=path,
            host=host.decode("latin-1"),
            authorization=text(headers.get(b"authorization")),
            request_id=given if given and REQUEST_ID.fullmatch(given) else f"{PROCESS}{next(_numbers):012x}",
            content_length=int(length) if length.isdecimal() else None,
            encoding=text(headers.get(b"content-encoding")),
            expects_continue=version == "1.1" and headers.get(b"expect", b"").lower() == b"100-continue",
        )
        call = Call(self, request, headers, version=version)
        wish = headers.get(b"connection", b"").lower()
        if wish:
            tokens = [token.strip() for token in wish.split(b",")]
            call.keep = b"close" not in tokens and (version == "1.1" or b"keep-alive" in tokens)
        return call

    # ── one after the other ──────────────────────────────────────────────────────────────────────
    def _next(self) -> None:
        """Begin with the next request if there is one; else say what was wrong, or wait."""
        if self.waiting:
            self.call = self.waiting.popleft()
            self.deadline = NEVER  # its own limits hold now
            self.task = self.loop.create_task(self.server.app.handle(self.call.request, self.call))
            self.task.add_done_callback(self._done)
            if self._ahead and not self.waiting:
                self._read_on()
        elif self.lingering:
            return
        elif self.broken is not None:
            self._refuse(self.broken)
        elif self.deadline == NEVER:
            self.deadline = self.loop.time() + (HEAD_SECONDS if self._in_head else IDLE_SECONDS)

    def _done(self, task: "asyncio.Task[None]") -> None:
        call, self.call, self.task = self.call, None, None
        if task.cancelled():
            self.close()
            return
        failure = task.exception()
        if failure is not None:
            self.server.failed(failure)
        if self.closed or call is None:
            return
        if not call.ended and not call.started:
            self._refuse(Refusal(500, "internal_error", "The gateway failed at this request.", type="api_error"))
        elif not call.ended or not call.keep or (self.server.draining and not self.waiting):
            self._hang_up(call)
        elif self.full:
            self.deadline = self.loop.time() + STALL_SECONDS  # the next waits until this answer is taken
        else:
            self._next()

    def _read_on(self) -> None:
        self._ahead, unread, self._unread = 0, self._unread, b""
        self.data_received(unread)
        if self._ahead <= AHEAD_BYTES and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer without a request, and hang up."""
        body = refusal.body()
        head = (
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        )
        self.write(head % (refusal.status, REASONS.get(refusal.status, "Unknown").encode(), len(body)) + body)
        self._linger()

    def _hang_up(self, call: Call) -> None:
        """Close. Where the caller may still be sending, read on for a moment, or it gets a reset instead of
        the answer."""
        if call.complete or not call.ended:
            self.close()
        else:
            self._linger()

    def _linger(self) -> None:
        self.lingering = True
        self.deadline = self.loop.time() + LINGER_SECONDS
        if self.transport is not None and not self.closed:
            if self.transport.can_write_eof():
                self.transport.write_eof()
            if not self.transport.is_reading():
                self.transport.resume_reading()

    def close(self) -> None:
        """Hang up once everything written is taken."""
        self.deadline = self.loop.time() + STALL_SECONDS
        if self.transport is not None:
            self.transport.close()

    def cut(self) -> None:
        """Hang up at once."""
        if self.transport is not None:
            self.transport.abort()

    def expire(self, now: float) -> None:
        """Called now and then: hang up on who has been quiet for too long."""
        if now < self.deadline or self.call is not None:
            return
        if self.transport is not None and (self.full or self.transport.is_closing()):
            self.cut()  # it does not even take what was written before
        elif self._in_head and not self.lingering:
            self._refuse(Refusal(408, "request_timeout", f"The head did not arrive within {HEAD_SECONDS:g} s."))
        else:
            self.close()
