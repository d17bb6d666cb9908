"""An instance's answer on its way to the caller: JSON in one or in parts, a stream of events, an error."""

from typing import TYPE_CHECKING, Any, Protocol

import orjson

from gateway import errors
from gateway.call import Call
from gateway.errors import Headers
from gateway.sse import EventFilter
from gateway.upstream import Head
from gateway.usage import NOTHING, Usage, delivered_chars, edges, estimated, prompt_chars, usage_in, usage_of

if TYPE_CHECKING:
    from gateway.exchange import Exchange

JSON = b"application/json"
STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
READ_FOR_USAGE = 4 * 2**20
ERROR_BYTES = 256 * 1024
EMPTY = errors.upstream(502, "empty_stream", "The instance ended its stream without a single event.")
ODD = errors.upstream(502, "upstream_error", "The instance's answer is not one that this gateway understands.")
LONG = errors.upstream(502, "response_too_large", "The instance's answer is longer than this endpoint allows.")


class Answer(Protocol):
    def take(self, data: bytes, last: bool) -> None:
        """What came since the last time; `last` if nothing follows. Ends the exchange when that was its end."""


def answer_to(exchange: "Exchange", head: Head) -> Answer:
    """The one that carries what begins with this head."""
    if head.status >= 400:
        return EngineError(exchange, head)
    if head.status >= 300:
        return Odd(exchange)
    if head.streams:
        return Stream(exchange)
    if exchange.client.started:
        return Odd(exchange)  # a heartbeat said that a stream would follow, and none does
    return Whole(exchange, head)


class Odd:
    def __init__(self, exchange: "Exchange") -> None:
        self.exchange = exchange

    def take(self, data: bytes, last: bool) -> None:
        self.exchange.fail(ODD)


class Whole:
    """A body that is passed on as it comes, one part behind: until the last part is known, 502 is still possible
    for what came in one."""

    def __init__(self, exchange: "Exchange", head: Head) -> None:
        self.exchange = exchange
        self.head = head
        self.copy = b""
        self.held = b""
        self.most = exchange.admitted.route.admission.max_response_bytes
        exchange.tokens = self.tokens

    def take(self, data: bytes, last: bool) -> None:
        exchange = self.exchange
        if self.most is not None and exchange.bytes_out + len(self.held) + len(data) > self.most:
            exchange.fail(LONG)
        elif last and not self.held and not exchange.client.started:
            self.copy = data
            exchange.answer_whole(200, self.head.kind, data)
        else:
            self._take_part(data, last)

    def _take_part(self, data: bytes, last: bool) -> None:
        exchange = self.exchange
        self.copy += data
        if len(self.copy) > READ_FOR_USAGE:
            self.copy = edges(self.copy)
        if not exchange.client.started and (last or (self.held and data)):
            length = self.head.headers.get(b"content-length")
            framed: Headers = ((b"content-length", length),) if length else ()
            exchange.start(((b"content-type", self.head.kind), *framed))
        if self.held and data:
            exchange.send(self.held)
        if data:
            self.held = data
        if last:
            exchange.finish(200, self.held)

    def tokens(self) -> Usage:
        return tokens_in(self.copy, self.exchange.prepared.request)


def tokens_in(body: bytes, request: dict[str, Any]) -> Usage:
    """What an answer in one piece says that it cost, else an estimate."""
    if not request:
        return NOTHING  # the list of models costs no tokens
    try:
        answer: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    return (
        usage_of(answer.get("usage"))
        or (None if answer else usage_in(body))
        or estimated(prompt_chars=prompt_chars(request), completion_chars=delivered_chars(answer))
    )


class Stream:
    """Events, each as soon as it is whole."""

    def __init__(self, exchange: "Exchange") -> None:
        self.exchange = exchange
        self.events = EventFilter(keep_usage=exchange.prepared.wants_usage)
        self.most = exchange.admitted.route.admission.max_response_bytes
        exchange.tokens = self.tokens
        client = exchange.client
        self.call = client if isinstance(client, Call) else None
        if exchange.connection is not None and self.most is None:
            exchange.connection.chunks = self

    def take_chunk(self, chunk: bytes, data: bytes) -> bool:
        """Pass on one whole chunk of the instance's as it is, where `data` in it is one plain event; False if it
        has to come the long way. Not for the first, which begins the answer."""
        exchange, call = self.exchange, self.call
        if call is None or exchange.ttft_us is None or not exchange.goes_on or not call.in_chunks:
            return False
        if not self.events.passes(data):
            return False
        exchange.silent_since = exchange.heard = exchange.gateway.clock()
        exchange.bytes_out += len(data)
        if call.send_chunk(chunk) and exchange.connection is not None:
            exchange.connection.pause()
        return True

    def take(self, data: bytes, last: bool) -> None:
        exchange, events = self.exchange, self.events
        if self.most is None and not last and events.passes(data):
            if exchange.ttft_us is None or not exchange.client.started:
                exchange.start_stream()
                exchange.first_token()
            exchange.send(data)
            return
        if data:
            try:
                out = events.feed(data)
            except ValueError:
                exchange.fail(ODD)
                return
            if self._pass_on(out):
                return
        if last and not self._pass_on(events.close()):
            if not events.events:
                exchange.fail(EMPTY)
            else:
                exchange.start_stream()
                exchange.finish(200, b"")  # whole by its framing: some engines leave [DONE] out

    def _pass_on(self, out: bytes) -> bool:
        """Send what the filter let through; True when that was the end."""
        exchange, events = self.exchange, self.events
        if events.events:
            exchange.first_token()
        if events.error is not None:
            if not exchange.client.started and not events.events:
                exchange.fail(events.error)
            else:
                exchange.start_stream()
                exchange.code = events.error.code
                exchange.finish(events.error.status, out)
            return True
        if events.done:
            if not events.events:
                exchange.fail(EMPTY)
            else:
                exchange.start_stream()
                exchange.finish(200, out)
            return True
        if self.most is not None and exchange.bytes_out + len(out) > self.most:
            exchange.fail(LONG)
            return True
        if out:
            exchange.start_stream()
            exchange.send(out)
        return False

    def tokens(self) -> Usage:
        events, request = self.events, self.exchange.prepared.request
        if events.usage is not None:
            return events.usage
        if not events.events:
            return NOTHING
        return estimated(prompt_chars=prompt_chars(request), completion_chars=events.chars)


class EngineError:
    """The engine's own refusal, completed to the shape that clients read."""

    def __init__(self, exchange: "Exchange", head: Head) -> None:
        self.exchange = exchange
        self.head = head
        self.body = b""

    def take(self, data: bytes, last: bool) -> None:
        self.body += data
        if not last and len(self.body) < ERROR_BYTES:
            return
        exchange, head = self.exchange, self.head
        text = errors.of_engine(head.status, self.body)
        if exchange.client.started:
            exchange.finish(head.status, b"data: " + text + b"\n\n")
            return
        wait = head.headers.get(b"retry-after", b"2" if head.status == 503 else b"")
        exchange.answer_whole(head.status, JSON, text, ((b"retry-after", wait),) if wait else ())
