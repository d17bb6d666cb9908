"""What a caller sent and got, held until it is written: of a sample of requests, where an endpoint opted in.

Nothing here is stored as it is: `gateway.remembered` redacts it first.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from gateway.client import Client, Limits
from gateway.errors import Headers, Refusal
from gateway.totals import MINUTE

if TYPE_CHECKING:
    from gateway.exchange import Exchange

LONGEST = 64 * 1024  # bytes of a body; nothing is kept of a longer one, because half a body can't be redacted
A_MINUTE = 10  # requests of an endpoint


class Bodies:
    """Both bodies of one request. A longer one than `LONGEST` is only counted."""

    __slots__ = ("answer", "answer_bytes", "request", "request_bytes", "streamed")

    def __init__(self) -> None:
        self.request = b""
        self.request_bytes = 0
        self.answer = bytearray()
        self.answer_bytes = 0
        self.streamed = False

    def came(self, body: bytes) -> None:
        self.request_bytes = len(body)
        self.request = body if len(body) <= LONGEST else b""

    def went(self, data: bytes) -> None:
        self.answer_bytes += len(data)
        if self.answer_bytes <= LONGEST:
            self.answer += data
        else:
            self.answer.clear()

    def forget(self) -> None:
        self.request, self.answer = b"", bytearray()


class Recorded:
    """A client whose bodies are written along."""

    def __init__(self, client: Client, bodies: Bodies) -> None:
        self._client = client
        self._bodies = bodies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def body(self, limits: Limits) -> bytes | Refusal | None:
        body = self._client.body(limits)
        if isinstance(body, bytes):
            self._bodies.came(body)
        return body

    def answer(self, status: int, kind: bytes, body: bytes, headers: Headers = (), lines: bytes = b"") -> None:
        self._bodies.went(body)
        self._client.answer(status, kind, body, headers, lines)

    def start(self, status: int, headers: Headers) -> None:
        self._client.start(status, headers)
        self._bodies.streamed = self._client.streaming

    def send(self, data: bytes) -> bool:
        self._bodies.went(data)
        return self._client.send(data)

    def end(self, data: bytes = b"") -> None:
        self._bodies.went(data)
        self._client.end(data)


class Sampler:
    """Draws which requests are written along: one in so many, and no more than `A_MINUTE` of an endpoint."""

    def __init__(self, *, draw: random.Random | None = None) -> None:
        self.draw = draw or random.Random()  # noqa: S311 (a sample, not a secret)
        self._minutes: dict[int, tuple[int, int]] = {}

    def consider(self, exchange: Exchange) -> None:
        """Called as an exchange begins."""
        route, now = exchange.admitted.route, exchange.gateway.meter.now()
        if self.draws(route.bodies_one_in) and self._has_room(route.endpoint_id, now):
            exchange.bodies = Bodies()
            exchange.client = Recorded(exchange.client, exchange.bodies)

    def draws(self, one_in: int) -> bool:
        return self.draw.random() * one_in < 1

    def _has_room(self, endpoint_id: int, now: float) -> bool:
        start = int(now) // MINUTE
        minute, taken = self._minutes.get(endpoint_id, (start, 0))
        if minute != start:
            taken = 0
        if taken >= A_MINUTE:
            return False
        self._minutes[endpoint_id] = start, taken + 1
        return True
