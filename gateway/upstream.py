"""Our own HTTP/1.1 client towards instances: httptools, kept-alive sockets, bodies as they come.

Nobody waits in here: whoever asks is told that something came, and takes it.
"""

import asyncio
import select
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import httptools

from gateway.framing import framed_of

if TYPE_CHECKING:
    from gateway.answer import Stream
    from gateway.pool import Pool

HEADER_LIMIT = 64 * 1024

Address = tuple[str, int]


class Head(NamedTuple):
    """Status and headers of an answer; names in lower case. `kind` is its content type as it came, `streams` if
    that is a stream of events; `reusable` once it is known whether the engine keeps the connection behind it."""

    status: int
    headers: dict[bytes, bytes]
    kind: bytes
    streams: bool
    reusable: bool = False


def head_of(status: int, headers: dict[bytes, bytes]) -> Head:
    kind = headers.get(b"content-type", b"application/json")
    return Head(status, headers, kind, kind.partition(b";")[0].strip().lower() == b"text/event-stream")


class Asker(Protocol):
    """Who sent a request, and is told what becomes of it."""

    def came(self) -> None:
        """Something of the answer is there: its head, a part, its end."""

    def lost(self) -> None:
        """The connection ended before the answer was whole."""


class Connection(asyncio.Protocol):
    """One socket, one request at a time. `complete` and `reusable` speak of the last answer."""

    def __init__(self, address: Address, pool: "Pool") -> None:
        self.address = address
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.parser: httptools.HttpResponseParser | None = None
        self.head: Head | None = None
        self.asker: Asker | None = None
        self.closed = False
        self.complete = False
        self.reusable = False
        self.doubtful = False  # whether it is, in spite of what the engine says
        self.leaving = False  # nobody wants the rest of the answer
        self.hung_up = False  # the engine did, not we
        self.idle_since = 0.0  # since the last answer; 0 before it
        self.paused = False
        self.chunks: Stream | None = None  # takes what is one whole chunk without the parser
        self.bodiless = False  # the answer, whatever its head says
        self._poll: select.poll | None = None
        self._expecting = False
        self._between_chunks = False  # the parser is
        self._parts: list[bytes] = []
        self._raw = b""  # what a head that begins now was read from
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._unbodied = 0  # bytes since the last of a body: of heads, trailers, extensions

    # ── for the one who asks ─────────────────────────────────────────────────────────────────────
    def send(self, data: bytes, asker: Asker, *, bodiless: bool = False) -> None:
        """Begin a request: `data` is its head and body. Whoever sends must see it to the end, or close.
        `bodiless`: the answer has no body whatever its head says, as after HEAD."""
        self.asker, self.bodiless = asker, bodiless
        self.head, self.parser, self._parts = None, None, []
        self.chunks, self._between_chunks = None, False
        self.complete = self.reusable = self.doubtful = False
        self._expecting = True
        if self.closed:
            self._tell_lost()
        elif self.transport is not None:
            self.transport.write(data)

    def take(self) -> bytes:
        """What came of the body since the last time."""
        parts = self._parts
        if not parts:
            return b""
        self._parts = []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pause(self) -> None:
        """Let the engine wait: nobody takes what came."""
        if not self.paused and not self.closed and self.transport is not None:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.paused and not self.closed and self.transport is not None:
            self.paused = False
            self.transport.resume_reading()

    def leave(self) -> None:
        """The asker has all it needs; what is left of the answer is read and thrown away."""
        self.asker, self.leaving = None, True
        self.resume()

    def close(self) -> None:
        """Hang up at once: this is what makes an engine stop working on the request."""
        self.closed, self.reusable, self.asker = True, False, None
        if self.transport is not None:
            self.transport.abort()

    def sound(self) -> bool:
        """Whether an idle connection can still carry a request: nothing is to be read, so no hang-up either."""
        if self.closed or self.transport is None or self.transport.is_closing():
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    # ── for the event loop ───────────────────────────────────────────────────────────────────────
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by behaviour only
        self.transport.set_write_buffer_limits(high=0)  # to the kernel at once, not at the loop's next turn

    def data_received(self, data: bytes) -> None:
        if not self._expecting:
            self.close()  # an answer to nothing: this connection's order is lost
            return
        parser = self.parser
        if parser is None:
            head, start, length = self.pool.heads.find(data)
            if head is not None and len(data) - start == length:
                self._take_whole(head, data[start:])
                return
            parser = self._begin_parsing(data)
        elif self._between_chunks and self.chunks is not None:
            body = framed_of(data)
            if body and self.chunks.take_chunk(data, body):
                return
        self._unbodied += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._give_up()
            return
        if self._between_chunks:
            self._between_chunks = data.endswith(b"\n")  # else the next one has begun
        if self._unbodied > HEADER_LIMIT and not self.complete:
            self._give_up()
        elif self.asker is not None:
            self.asker.came()
        elif self.leaving and self.complete:
            self.pool.left(self)

    def connection_lost(self, exc: Exception | None) -> None:
        head, asked = self.head, self.asker is not None and not self.closed
        unframed = head is not None and not (
            b"content-length" in head.headers or b"transfer-encoding" in head.headers
        )
        self.hung_up = not self.closed
        self.closed, self.reusable, self.parser = True, False, None
        if asked and unframed and exc is None:
            self.complete = True  # an answer without a length ends with its connection
            self._tell()
        elif asked and not self.complete:
            self._tell_lost()
        if self.leaving:
            self.pool.left(self)

    def _tell(self) -> None:
        if self.asker is not None:
            self.asker.came()
        if self.leaving and self.complete:
            self.pool.left(self)

    def _tell_lost(self) -> None:
        asker, self.asker = self.asker, None
        if asker is not None:
            asker.lost()

    def _take_whole(self, head: Head, body: bytes) -> None:
        """An answer that came in one, with a head that was read before."""
        self.head, self.complete, self._expecting = head, True, False
        self.reusable = head.reusable and self._all_sent()
        if body:
            self._parts.append(body)
        if self.asker is not None:
            self.asker.came()
        else:
            self._tell()

    def _all_sent(self) -> bool:
        return self.transport is not None and self.transport.get_write_buffer_size() == 0

    # ── for the parser ───────────────────────────────────────────────────────────────────────────
    def _begin_parsing(self, data: bytes) -> httptools.HttpResponseParser:
        self.parser = parser = httptools.HttpResponseParser(self)
        self._raw = data
        self._headers, self._header_bytes, self._unbodied = {}, 0, 0
        return parser

    def _give_up(self) -> None:
        """What is no answer ends the connection; what came before it still counts."""
        asker, whole = self.asker, self.complete
        self.close()
        if asker is not None and self.head is not None:
            asker.came()
        if asker is not None and not whole:
            asker.lost()

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer")  # must not become a part of the first, nor anybody's

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_LIMIT:
            raise ValueError("the answer's head is too long")
        name = name.lower()
        if name in self._headers and name != b"content-type":
            value = self._headers[name] + (b"\n" if name == b"set-cookie" else b", ") + value
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code() if self.parser is not None else 0
        if status >= 200:  # what comes before is a note on the way, such as 100 Continue
            self.head = head_of(status, self._headers)
            if self.bodiless:
                self.complete, self._expecting = True, False
        else:
            self._raw = b""
        self._headers, self._header_bytes = {}, 0

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_body(self, body: bytes) -> None:
        self._unbodied = 0
        if not self.leaving:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        head, parser = self.head, self.parser
        if head is None or parser is None:
            return
        self.complete, self._expecting = True, False
        # llama.cpp promises to keep a connection and hangs up after each stream all the same, a moment
        # later: a request that was sent meanwhile would be lost.
        streamed = b"transfer-encoding" in head.headers
        keeps = parser.should_keep_alive()  # the parser knows only in here
        self.reusable = keeps and self._all_sent()
        self.doubtful = streamed
        length = head.headers.get(b"content-length")
        bodied = length is not None and not streamed and head.status not in (204, 304)
        if bodied and self._raw:
            self.pool.heads.keep(self._raw, head._replace(reusable=keeps), length)
