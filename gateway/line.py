"""HTTP/1.1 towards callers: one asyncio Protocol a connection, parsed by httptools, one request at a time.

What a framework would have given is here: limits on heads and bodies and the time they take, pipelined
requests in their order with reading paused meanwhile, 100-continue, answers before the body's end, refusal
of what two parsers could read in two ways, and a word to the owner when the caller takes no more. A caller
that closes its side has left: the request ends, as behind nginx.
"""

import asyncio
import re
import struct
from collections import deque
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, cast

import httptools

from gateway import websocket
from gateway.admit import Request
from gateway.behind import Behind
from gateway.call import NEVER, REASONS, Call, new_id
from gateway.errors import Refusal
from gateway.target import Unreadable, malformed, target_of, text, too_long, unreadable

if TYPE_CHECKING:
    from gateway.server import Server

HEAD_BYTES = 64 * 1024
AHEAD_BYTES = 16 * 1024  # of requests whose turn has not come
HEAD_SECONDS = 20.0  # from the first byte of a head to its end
IDLE_SECONDS = 75.0  # between two requests
LINGER_SECONDS = 5.0  # for the rest of a body that an early answer left unread
STALL_SECONDS = 60.0  # for a caller to take what is written, before it is cut off
AT_ONCE = struct.pack("ii", 1, 0)  # what was not taken is thrown away, and the other side told so
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
SINGLE = (b"host", b"transfer-encoding", b"authorization")  # of two, another reader might take the other


class Line(asyncio.Protocol):
    """One caller's connection. `deadline` is when it has been quiet for too long, in the loop's time."""

    __deletable__ = ("parser",)  # as mypyc needs it said

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
        self.waiting: deque[Call] = deque()  # whose turn has not come
        self.arriving: Call | None = None  # whose body is still coming
        self.broken: Refusal | None = None  # nothing after this can be read
        self._ahead = 0  # bytes of requests that came before their turn
        self._unread = b""  # what came behind those
        self._head_bytes = 0  # that came since the last byte of a body: of a head, of trailers or extensions
        self._full_since = 0.0
        self._turning = False
        self._raw = b""  # what a head that begins now was read from
        self._wishes_socket = False
        self.behind: Behind | None = None  # a request for a websocket
        self._new_head()

    def _new_head(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._in_head = False

    @property
    def between(self) -> bool:
        """Whether the next byte begins a request, and nothing before it is left to do."""
        return (
            self.call is None
            and self.arriving is None
            and not (self._in_head or self.waiting or self.full or self.lingering or self.broken or self.behind)
        )

    # ── for the event loop ───────────────────────────────────────────────────────────────────────
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by behaviour only
        # Every write goes to the kernel at once: uvloop would else gather them until the loop's next turn,
        # and a kill in between would leave answers counted that nobody got. Over TLS it calls 0 of 0 bytes full.
        self.transport.set_write_buffer_limits(high=1)
        self.server.lines.add(self)

    def data_received(self, data: bytes) -> None:
        if self.between:
            request, start, length = self.server.heads.find(data)
            if request is not None and len(data) - start == length:
                self.call = call = Call.whole(self, request, data[start:])
                self.deadline = NEVER
                self.server.answer(call)
                return
            self._raw = data
        if len(data) <= AHEAD_BYTES or self.behind is not None:
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
        if self.behind is not None:
            self.behind.came(data)
            return
        self._head_bytes += len(data)
        try:
            self._feed(data)
            if self._head_bytes > HEAD_BYTES and (self._in_head or self.arriving is not None):
                raise too_long(HEAD_BYTES)
        except Unreadable as problem:
            self.broken = problem.refusal
        except httptools.HttpParserError as fault:
            cause = fault.__context__
            self.broken = cause.refusal if isinstance(cause, Unreadable) else malformed(fault)
        if self.broken is not None and self.arriving is not None:
            self.arriving.spoil(self.broken)
        if self.call is not None:
            self.call.tell()
        if not self.full:
            self.turn()
        if self.waiting:
            self._ahead += len(data)
            if self._ahead > AHEAD_BYTES and self.transport is not None:
                self.transport.pause_reading()  # not sooner: who does not read sees no hang-up either

    def eof_received(self) -> None:
        """The transport closes, and `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.server.lines.discard(self)
        self.full = False
        self.waiting.clear()
        if self.call is not None and self.call.owner is not None:
            self.call.owner.caller_left()
        self.behind = None
        del self.parser  # it knows this line: both would stay until garbage is looked for

    def pause_writing(self) -> None:
        self.full, self._full_since = True, self.loop.time()

    def resume_writing(self) -> None:
        self.full = False
        if self.call is not None:
            if self.call.owner is not None:
                self.call.owner.caller_ready()
        elif self.transport is not None and not self.transport.is_closing():
            self.deadline = NEVER
            self.turn()

    # ── for the call ─────────────────────────────────────────────────────────────────────────────
    def write(self, data: bytes) -> None:
        if not self.closed and self.transport is not None:
            self.transport.write(data)

    # ── for the parser ───────────────────────────────────────────────────────────────────────────
    def on_message_begin(self) -> None:
        self._new_head()
        self._in_head = True
        if self.call is None and not self.full:  # else the time to take the last answer runs
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
            value = self._headers[name] + (b"; " if name == b"cookie" else b", ") + value
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_bytes > HEAD_BYTES and self._head_size() > HEAD_BYTES:
            raise too_long(HEAD_BYTES)
        if self.parser.should_upgrade():
            return  # fed again without the wish, see `_feed`
        request, length = self._request(), self._headers.get(b"content-length")
        if self._raw and request.plain and request.keep and not request.request_id and self._memorable():
            self.server.heads.keep(self._raw, request, length)
        self._raw = b""
        self.arriving = Call(self, request, int(length) if length and length.isdigit() else None)
        self.waiting.append(self.arriving)

    def _memorable(self) -> bool:
        """Whether the body of the request that is just read follows from its length alone."""
        return not self._headers.keys() & {b"transfer-encoding", b"expect", b"upgrade"}

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self.arriving is not None:
            self.arriving.came(body)

    def on_message_complete(self) -> None:
        if self.arriving is not None:
            self.arriving.complete = True
            self.arriving = None
        self._head_bytes = 0

    def _head_size(self) -> int:
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers.items())

    def _feed(self, data: bytes) -> None:
        """Parse. A wish to change the protocol is passed over, as HTTP allows: the same request is fed again
        without it, because the parser leaves the body of such a request unread. One for a websocket is noted."""
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as wish:
                self._raw = b""
                head, behind = self._without_wish(), data[wish.args[0] :]
            else:
                break
            self.parser = httptools.HttpRequestParser(self)
            if self._wishes_socket:  # what follows is no request, whatever becomes of the wish
                self.parser.feed_data(head)
                self.behind = Behind(self, behind)
                break
            data = head + behind

    def _without_wish(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise unreadable(405, "method_not_allowed", "CONNECT is not served here.")
        kept = {k: v for k, v in self._headers.items() if k not in (b"upgrade", b"http2-settings")}
        kept[b"connection"] = b",".join(
            token
            for token in kept.get(b"connection", b"").split(b",")
            if token.strip().lower() not in (b"upgrade", b"http2-settings")
        )
        self._wishes_socket = websocket.wished(method, self.parser.get_http_version(), self._headers)
        lines = b"".join(b"%b: %b\r\n" % header for header in kept.items())
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self._url, version, lines)

    def _request(self) -> Request:
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
            path, host, target = target_of(self._url)
        except httptools.HttpParserInvalidURLError:
            raise unreadable(400, "invalid_url", "The request's target is no URL.") from None
        host = headers.get(b"host", b"") if host is None else host
        given, socket = headers.get(b"x-request-id", b""), self._wishes_socket
        if socket and (coding is not None or headers.get(b"content-length", b"0") != b"0"):
            raise unreadable(400, "invalid_request", "A request for a websocket has no body.")
        method = self.parser.get_method().decode("latin-1")
        return Request(
            method=method,
            path=path,
            host=host.decode("latin-1"),
            authorization=text(headers.get(b"authorization")) or (websocket.bearer(headers) if socket else None),
            headers=headers,
            version=version,
            keep=self._keeps(version) and not socket,
            request_id=given if REQUEST_ID.fullmatch(given) else b"",
            encoding=text(headers.get(b"content-encoding")),
            expects_continue=version == "1.1" and headers.get(b"expect", b"").lower() == b"100-continue",
            plain=version == "1.1" and method != "HEAD",
            target=target,
            socket=socket,
        )

    def _keeps(self, version: str) -> bool:
        tokens = [token.strip() for token in self._headers.get(b"connection", b"").lower().split(b",")]
        wishes = b"close" not in tokens and (version == "1.1" or b"keep-alive" in tokens)
        return wishes and self.parser.should_keep_alive()  # else it reads no further

    # ── one after the other ──────────────────────────────────────────────────────────────────────
    def over(self, call: Call) -> None:
        """A call is done with."""
        busy = self.waiting or self.broken or self.full or self.closed or self.arriving or self._in_head
        if busy or self._turning or self.server.draining or not (call.ended and call.keep):
            self.turn()
        else:  # what nearly always is: nothing more came
            self.call = None
            self.deadline = self.loop.time() + IDLE_SECONDS

    def turn(self) -> None:
        """Answer what waits, one after the other, for as long as each is answered at once; called whenever
        something came or a request is done with."""
        if self._turning:
            return
        self._turning = True
        try:
            while self.call is None or self.call.finished:
                if self.call is not None and not self._finish(self.call):
                    break
                if not self._begin():
                    break
        finally:
            self._turning = False

    def _begin(self) -> bool:
        """Begin with the next request if there is one; else say what was wrong, or wait."""
        if self.lingering:
            return False
        if self.waiting:
            self.call = call = self.waiting.popleft()
            self.deadline = NEVER  # its own limits hold now
            if self._ahead and not self.waiting:
                self._read_on()
            self.server.answer(call)
            return True
        if self.broken is not None:
            self._refuse(self.broken)
        elif self.deadline == NEVER:
            self.deadline = self.loop.time() + (HEAD_SECONDS if self._in_head else IDLE_SECONDS)
        return False

    def _finish(self, call: Call) -> bool:
        """What follows a request that is done with; True if the next may begin."""
        self.call = None
        if self.closed:
            return False
        if not call.ended and not call.started:
            failed = Refusal(500, "internal_error", "The gateway failed at this request.", type="api_error")
            self._refuse(failed, call.request_id)
        elif not call.ended or not call.keep or (self.server.draining and not self.waiting):
            self._hang_up(call)
        elif self.full:
            self.deadline = self.loop.time() + STALL_SECONDS  # the next waits until this answer is taken
        else:
            return True
        return False

    def _read_on(self) -> None:
        self._ahead, unread, self._unread = 0, self._unread, b""
        self.data_received(unread)
        if self._ahead <= AHEAD_BYTES and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _refuse(self, refusal: Refusal, request_id: bytes | None = None) -> None:
        """Answer without a request that could be read whole, and hang up."""
        self.server.app.gateway.count_refused(refusal)
        body = refusal.body()
        head = (
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n"
            b"%bx-request-id: %b\r\n\r\n%b"
        )
        reason, date = REASONS.get(refusal.status, "Unknown").encode(), self.server.date
        self.write(head % (refusal.status, reason, len(body), date, request_id or new_id(), body))
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

    def reset(self) -> None:
        """Hang up so that the caller sees an error: for one to whom an end says that the answer is whole."""
        if self.transport is not None and not self.closed:
            socket = self.transport.get_extra_info("socket")
            socket.setsockopt(SOL_SOCKET, SO_LINGER, AT_ONCE)
            self.transport.abort()

    def cut(self) -> None:
        """Hang up at once."""
        if self.transport is not None:
            self.transport.abort()

    def look(self, now: float) -> None:
        """Called a few times a second: hang up on who has been quiet for too long."""
        call = self.call
        if call is not None:
            if self.full and now > self._full_since + STALL_SECONDS:
                self.cut()
            elif now > call.deadline:
                call.late()
            elif call.owner is not None:
                call.owner.look(now)
        elif now >= self.deadline:
            self._expire()
        elif self.server.draining and self.between:
            self.close()  # it came as the drain began

    def _expire(self) -> None:
        if self.transport is not None and (self.full or self.transport.is_closing()):
            self.cut()  # it does not even take what was written before
        elif self._in_head and not self.lingering:
            self._refuse(Refusal(408, "request_timeout", f"The head did not arrive within {HEAD_SECONDS:g} s."))
        else:
            self.close()
