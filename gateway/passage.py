"""A request that passes as it is, to an endpoint whose engine has paths of its own, and the answer likewise.

Everything around it holds as for every other request: limits, the queue, the choice of an instance, the record.
Tokens count where the answer says so.
"""

from typing import TYPE_CHECKING, Any

import orjson

from gateway.admit import Admitted
from gateway.answer import LONG, READ_FOR_USAGE
from gateway.client import Client
from gateway.errors import Headers, Refusal
from gateway.exchange import SILENT, Exchange
from gateway.passing import BODIED, forwarded, head_for, headers_back, without_cookies
from gateway.rewrite import NO_BODY
from gateway.routes import Upstream
from gateway.sse import EventFilter
from gateway.upstream import Connection, Head
from gateway.usage import NOTHING, Usage, edges, usage_in, usage_of

if TYPE_CHECKING:
    from gateway.core import Gateway

STREAMED = NO_BODY._replace(stream=True)
KEEPS_NOT: Headers = ((b"connection", b"close"),)
UNBUFFERED: Headers = ((b"x-accel-buffering", b"no"),)


class Passage(Exchange):
    """An exchange in which nothing is read but what is counted."""

    def __init__(self, gateway: "Gateway", client: Client, admitted: Admitted) -> None:
        super().__init__(gateway, client, admitted)
        self.payload = b""

    def begin(self) -> None:
        refusal = self.admitted.refusal
        if refusal is not None:
            self.fail(refusal)
        else:
            self._take_body()

    def _take_body(self) -> None:
        body = self.client.body(self.gateway.limits)
        if isinstance(body, Refusal):
            self.fail(body)
        elif body is not None:
            self.bytes_in, self.payload = len(body), body
            self._ask_for_place()

    def _ask_for_place(self) -> None:
        if self.admitted.limited:
            self.gateway.limit(self)
        else:
            self.place()

    def _ask(self, connection: Connection, instance: Upstream) -> None:
        self.connection = connection
        self.silent_since = self.heard = self.gateway.clock()
        request, body = self.client.request, self.payload
        method = request.method
        more = forwarded(self.client, proxies=self.gateway.proxies)
        if body or method in BODIED:
            more += ((b"content-length", b"%d" % len(body)),)
        bodiless = method == "HEAD"
        if bodiless:
            more += KEEPS_NOT
        headers = without_cookies(request.headers, self.gateway.private)
        head = head_for(self.client, self.admitted, instance.authority, headers, more)
        connection.send(head + body, self, bodiless=bodiless)

    def came(self) -> None:
        try:
            connection, answer = self.connection, self.answer
            if connection is None or self.over or self._last is not None or (head := connection.head) is None:
                return
            if answer is None:
                self.first_byte_us = self.elapsed_us()
                answer = self.answer = Through(self, head)
            self.silent_since = self.heard = self.gateway.clock()
            answer.take(connection.take(), connection.complete)
        except Exception as failure:  # noqa: BLE001 (whatever it is, this request ends by it and no other)
            self.broke(failure)

    def look(self, now: float) -> None:
        """No heartbeat goes into an answer that is not ours to read."""
        if self.turn != self.gateway.turn:
            self._look_at_caller()
        silent = now - self.silent_since >= self.gateway.limits.silence_seconds
        if silent and self.connection is not None and not (self.over or self.client.full):
            self._guarded(lambda: self.fail(SILENT))


class Through:
    """A `gateway.answer.Answer` that is passed on, each part as soon as it is there."""

    def __init__(self, passage: Passage, head: Head) -> None:
        self.passage = passage
        self.head = head
        self.most = passage.admitted.route.admission.max_response_bytes
        readable = head.status < 400 and b"content-encoding" not in head.headers
        self.events = EventFilter(keep_usage=True) if readable and head.streams else None
        self.copy = bytearray()
        self.copies = readable and b"json" in head.kind and not head.streams
        passage.tokens = self.tokens
        if head.streams:
            passage.prepared = STREAMED

    def take(self, data: bytes, last: bool) -> None:
        passage, head = self.passage, self.head
        if self.most is not None and passage.bytes_out + len(data) > self.most:
            passage.fail(LONG)
            return
        if data:
            self._read(data)
        if not passage.client.started:
            told = passage.told() + UNBUFFERED if head.streams else passage.told()
            back = headers_back(head.status, head.headers, told, passage.gateway.private)
            passage.client.start(head.status, back + told)
            passage.client.streaming = False  # a word of ours between two of its parts would break it
        if last:
            passage.finish(head.status, data)
        else:
            passage.send(data)

    def _read(self, data: bytes) -> None:
        if self.events is not None:
            self.passage.first_token()
            try:
                self.events.feed(data)
            except ValueError:
                self.events = None  # it is none that can be read, and goes on all the same
        elif self.copies:
            self.copy += data
            if len(self.copy) > READ_FOR_USAGE:
                self.copy = bytearray(edges(bytes(self.copy)))

    def tokens(self) -> Usage:
        if self.events is not None:
            return self.events.usage or NOTHING
        if b'"usage"' not in self.copy:
            return NOTHING
        try:
            answer: Any = orjson.loads(self.copy)
        except orjson.JSONDecodeError:
            return usage_in(bytes(self.copy)) or NOTHING
        return (usage_of(answer.get("usage")) if isinstance(answer, dict) else None) or NOTHING
