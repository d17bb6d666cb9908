"""One request on a caller's connection, and its answer: a `gateway.client.Client`."""

from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING
from uuid import uuid4

from gateway import errors
from gateway.admit import Request
from gateway.behind import Behind
from gateway.client import Limits, Owner
from gateway.errors import Headers, Refusal
from gateway.framing import chunk_head

if TYPE_CHECKING:
    from gateway.line import Line

NEVER = float("inf")
DISCARD_BYTES = 64 * 2**20
REASONS = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
FIRST_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode()) for status, phrase in REASONS.items()}
PROCESS = uuid4().hex[:20].encode()  # begins the ids of requests that came without one
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
NO_BODY_STATUS = (204, 304)
_numbers = count()


def new_id() -> bytes:
    """For a request that came without one that can be read."""
    return b"%b%012x" % (PROCESS, next(_numbers))


class Call:
    """`deadline` is when the rest of the body must be here, in the loop's time, once somebody waits for it."""

    def __init__(self, line: "Line", request: Request, length: int | None = None) -> None:
        self.line = line
        self.request = request
        self.length = length  # that was announced
        self.request_id = request.request_id or new_id()
        self.keep = request.keep
        self.owner: Owner | None = None
        self.started = False
        self.streaming = False
        self.ended = False
        self.finished = False  # nothing is held for it any more
        self.complete = False  # the request's body is here whole
        self.size = 0  # of it, so far
        self.deadline = NEVER
        self.extra: Headers = ()  # on every answer
        self._got: bytes | bytearray = b""
        self._limit = 0
        self._awaited = False
        self._late = False
        self._spoiled: Refusal | None = None
        self._head = b""
        self._chunked = False
        self._mute = False
        self._unframed = False  # no length and no chunks say where the answer ends

    @classmethod
    def whole(cls, line: "Line", request: Request, body: bytes) -> "Call":
        """One that came in one."""
        call = cls(line, request)
        call.complete, call.size, call._got = True, len(body), body
        return call

    @property
    def peer(self) -> str:
        name = self.line.transport.get_extra_info("peername") if self.line.transport is not None else None
        return str(name[0]) if isinstance(name, tuple) else ""

    @property
    def secure(self) -> bool:
        return self.line.server.certificate is not None

    @property
    def behind(self) -> Behind | None:
        return self.line.behind if self.request.socket else None

    # ── what the line brings ─────────────────────────────────────────────────────────────────────
    def came(self, data: bytes) -> None:
        self.size += len(data)
        limit = self._limit or self.line.server.app.gateway.limits.body_bytes  # holds before anybody asks, too
        if self.size > limit:
            self._got = b""  # too long: the rest is read and thrown away
        elif isinstance(self._got, bytearray):
            self._got += data
        else:  # most come in one; a list of many small parts would weigh more than they do
            self._got = bytearray(self._got + data) if self._got else data

    def spoil(self, refusal: Refusal) -> None:
        """The rest of the body can't be read."""
        self._spoiled = refusal

    def tell(self) -> None:
        """After something came: wake the owner if that is what it waited for."""
        known = self.complete or self._spoiled is not None or self._late or self.size > DISCARD_BYTES
        if self._awaited and known and self.owner is not None:
            self._awaited, self.deadline = False, NEVER
            self.owner.body_came()

    def late(self) -> None:
        """The time for the body is over."""
        self._late = True
        self.tell()

    # ── gateway.client.Client ────────────────────────────────────────────────────────────────────
    @property
    def full(self) -> bool:
        return self.line.full

    def body(self, limits: Limits) -> bytes | Refusal | None:
        self._limit = limits.body_bytes
        if self.complete or self.size > DISCARD_BYTES:
            if self.size > limits.body_bytes:
                return errors.too_large(limits.body_bytes)
            got, self._got = self._got, b""
            return got if isinstance(got, bytes) else bytes(got)
        if self._spoiled is not None:
            return self._spoiled
        if self._late:
            what = f"The request body did not arrive within {limits.body_seconds:g} s."
            return Refusal(408, "request_timeout", what)
        if self.request.expects_continue:
            if (self.length or 0) > limits.body_bytes:
                return errors.too_large(limits.body_bytes)  # it asked first, so it needn't send at all
            self.line.write(CONTINUE)
        self._awaited, self.deadline = True, self.line.loop.time() + limits.body_seconds
        return None

    def answer(self, status: int, kind: bytes, body: bytes, headers: Headers = (), lines: bytes = b"") -> None:
        if not (self.keep and self.complete and self.request.plain):
            self.start(status, ((b"content-type", kind), (b"content-length", b"%d" % len(body)), *headers), lines)
            self.end(body)
            return
        self.started = self.ended = True
        server = self.line.server
        if server.draining:
            self.keep = False
        if headers or self.extra:
            lines += b"".join([b"%b: %b\r\n" % (name, value) for name, value in (*headers, *self.extra)])
        self.line.write(
            b"%bcontent-type: %b\r\ncontent-length: %b\r\n%b%b%bx-request-id: %b\r\n\r\n%b"
            % (
                FIRST_LINES.get(status) or _first_line(status),
                kind,
                str(len(body)).encode(),
                lines,
                b"" if self.keep else b"connection: close\r\n",
                server.date,
                self.request_id,
                body,
            )
        )

    def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """Put the head together; it leaves with the first bytes of the body."""
        self.started = True
        old, mute = self.request.version == "1.0", self.request.method == "HEAD" or status in NO_BODY_STATUS
        parts = [FIRST_LINES.get(status) or _first_line(status), lines]
        framed = mute
        for name, value in (*headers, *self.extra):
            parts.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                framed = True
            elif name == b"content-type" and value.startswith(b"text/event-stream;"):
                self.streaming = True
        if not self.complete or self.line.server.draining:
            self.keep = False
        if not framed and old:
            self.keep, self._unframed = False, True  # the answer ends with the connection
        elif not framed:
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
        if not self.keep:
            parts.append(b"connection: close\r\n")
        elif old:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"%bx-request-id: %b\r\n\r\n" % (self.line.server.date, self.request_id))
        self._mute = mute
        self._head = b"".join(parts)

    def send(self, data: bytes) -> bool:
        if data and not self._mute:
            frame = (
                b"%b%b%b\r\n" % (self._head, chunk_head(len(data)), data) if self._chunked else self._head + data
            )
        else:
            frame = self._head
        self._head = b""
        line = self.line
        if frame and not line.closed and line.transport is not None:
            line.transport.write(frame)
        return line.full

    @property
    def in_chunks(self) -> bool:
        """Whether the body's next part leaves as a chunk, and as nothing else."""
        return self._chunked and not (self._mute or self._head)

    def send_chunk(self, chunk: bytes) -> bool:
        """A part of the body `in_chunks`, in its frame."""
        line = self.line
        if not line.closed and line.transport is not None:
            line.transport.write(chunk)
        return line.full

    def end(self, data: bytes = b"") -> None:
        self.ended = True
        if self._mute:
            data = b""
        if self._chunked:
            data = b"%x\r\n%b\r\n%b" % (len(data), data, LAST_CHUNK) if data else LAST_CHUNK
        self.line.write(self._head + data)
        self._head = b""

    def abort(self) -> None:
        self.keep = False
        if self._unframed:
            self.line.reset()

    def over(self) -> None:
        self.owner, self.finished = None, True
        self.line.over(self)


def _first_line(status: int) -> bytes:
    return b"HTTP/1.1 %d Unknown\r\n" % status
