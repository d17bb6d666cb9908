"""A websocket from its handshake to its record: the instance's 101 goes to the caller, then bytes go both ways.

Each side waits while the other takes no more. The end of one is the end of the other. Nothing is read but where
the instance's frames end, so that the gateway can say goodbye between two of them: when it ends itself, when
nothing moved for too long, when the caller may no longer call or the endpoint was stopped, when the instance was
lost.
"""

import asyncio
from collections.abc import Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING

import httptools

from gateway import auth, errors, websocket
from gateway.admit import Admitted, stopped_text
from gateway.answer import ODD
from gateway.behind import Behind
from gateway.client import Client
from gateway.errors import Headers, Refusal
from gateway.exchange import DRAINED, LOST, SILENT
from gateway.passage import Passage
from gateway.passing import forwarded, head_for, headers_back, without_cookies
from gateway.routes import Upstream
from gateway.totals import SWITCHED
from gateway.upstream import HEADER_LIMIT, Connection

if TYPE_CHECKING:
    from gateway.core import Gateway

HANDSHAKE_SECONDS = 60.0
GOODBYE_SECONDS = 5.0  # for the caller's own goodbye to pass
SWITCHING = b"HTTP/1.1 101 "
UPGRADE: Headers = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"))
STRANGER = errors.forbidden(
    "Pages of this origin may not open websockets here. Name it among the endpoint's origins.",
    code="origin_not_allowed",
)
IDLE = Refusal(408, "websocket_idle", "Nothing moved for too long.")
EXPIRED = errors.no_key("The API key has expired.", code="expired_api_key")


class Socket(Passage):
    """A passage whose answer is another protocol; what answers in HTTP all the same passes as such."""

    def __init__(self, gateway: "Gateway", client: Client, admitted: Admitted, behind: Behind) -> None:
        super().__init__(gateway, client, admitted)
        self.behind = behind
        self.tunnel: Tunnel | None = None
        self.frames = websocket.Frames()  # of the instance
        self.switched = False
        self.farewell = b""  # that waits for the end of a frame
        self.leaves = 0.0  # when a goodbye has waited long enough; 0 before it

    # ── the handshake ────────────────────────────────────────────────────────────────────────────
    def begin(self) -> None:
        headers = self.client.request.headers
        refusal = self.admitted.refusal
        if refusal is None and b"origin" in headers and not self.client.extra:
            refusal = STRANGER
        refusal = refusal or websocket.unfit(headers)
        if refusal is not None:
            self.fail(refusal)
        else:
            self._ask_for_place()

    def _reach(self, instance: Upstream) -> None:
        """On a connection of its own, that nobody used before."""
        self.connecting_at = perf_counter_ns()
        self.gateway.pool.connect(instance.address, self)

    def _ask(self, connection: Connection, instance: Upstream) -> None:
        self.connection = connection
        self.silent_since = self.heard = self.gateway.clock()
        if connection.transport is None or connection.closed:
            self.lost()
            return
        more = forwarded(self.client, proxies=self.gateway.proxies) + UPGRADE
        self.tunnel = Tunnel(self, connection, connection.transport)
        headers = without_cookies(self.client.request.headers, self.gateway.private)
        headers = websocket.request_headers(headers)
        self.tunnel.write(head_for(self.client, self.admitted, instance.authority, headers, more))

    def opened(self, answer: Mapping[bytes, bytes]) -> None:
        """The instance agreed, or says so."""
        asked = self.client.request.headers
        if not websocket.agrees(asked, answer):
            self.fail(ODD)
            return
        told = UPGRADE + websocket.chosen(asked, answer) + self.told() + self.client.extra
        headers = headers_back(SWITCHED, answer, told, self.gateway.private) + told
        self.first_byte_us = self.elapsed_us()
        self.client.started, self.connection, self.switched = True, None, True
        self.heard = self.gateway.clock()
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        identity = b"x-request-id: %b\r\n" % self.client.request_id
        self.behind.write(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + identity + b"\r\n")
        sockets, number = self.gateway.sockets, self.admitted.route.endpoint_id
        sockets[number] = sockets.get(number, 0) + 1
        self.behind.take_over(self)

    @property
    def open(self) -> bool:
        return self.switched and not self.over

    # ── both ways ────────────────────────────────────────────────────────────────────────────────
    def from_caller(self, data: bytes) -> None:
        tunnel = self.tunnel
        if tunnel is None or self.over:
            return
        self.bytes_in += len(data)
        self.heard = self.gateway.clock()
        if tunnel.write(data):
            self.behind.pause()

    def from_instance(self, data: bytes) -> None:
        if self.over:
            return
        if self.leaves:
            data = data[: self.frames.end_in(data)]
        self.frames.follow(data)
        self.bytes_out += len(data)
        self.heard = self.gateway.clock()
        if data and self.behind.write(data) and self.tunnel is not None:
            self.tunnel.pause()
        self._say_farewell()

    def instance_ready(self) -> None:
        self.behind.resume()

    def caller_ready(self) -> None:
        if self.open and self.tunnel is not None:
            self.tunnel.resume()
        else:
            super().caller_ready()

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────
    def instance_left(self) -> None:
        if self.over:
            return
        if not self.open:
            self.lost()
            return
        if not self.frames.closed and not self.leaves:
            self.code = LOST.code
            if self.frames.between:
                self._write_last(websocket.close_frame(websocket.INTERNAL, "The instance was lost."))
        self._end()

    def caller_left(self) -> None:
        if self.open:
            self._end()
        else:
            super().caller_left()

    def cut(self) -> None:
        if not self.open:
            super().cut()
            return
        if not self.leaves:
            self._leave(DRAINED, websocket.GOING_AWAY)
        self._end()

    def look(self, now: float) -> None:
        if not self.open:
            waited = self.connection is not None and now - self.silent_since >= HANDSHAKE_SECONDS
            if waited and not self.client.started and not self.over:
                self._guarded(lambda: self.fail(SILENT))
            else:
                super().look(now)
        elif self.leaves:
            if now >= self.leaves:
                self._end()
        elif self.behind.draining:
            self._leave(DRAINED, websocket.GOING_AWAY)
        elif now - self.heard >= self.gateway.limits.socket_idle_seconds:
            self._leave(IDLE, websocket.GOING_AWAY)
        elif (refusal := self._refusal_now()) is not None:
            self._leave(refusal, websocket.POLICY if refusal.status in (401, 403) else websocket.GOING_AWAY)

    def _refusal_now(self) -> Refusal | None:
        """Why the caller may not go on, as the world stands now. A signed token's own end ends no socket that it
        opened, the end of what it speaks for does."""
        gateway, route = self.gateway, self.admitted.route
        found = gateway.table.numbered.get(self.admitted.key.id)
        expires_at = found.expires_at if found is not None else None
        if expires_at is not None and gateway.meter.clock() >= expires_at.timestamp():
            return EXPIRED
        if self.turn == gateway.turn:
            return None
        self.turn = gateway.turn
        key, current = gateway.table.standing(self.admitted.key), gateway.table.named(route.name)
        if key is None:
            return auth.ENDED
        if current is None or current.endpoint_id != route.endpoint_id:
            return errors.unknown_endpoint(route.name)
        if current.desired == "stopped":
            return errors.stopped(stopped_text(current))
        return auth.authorise(key, current)

    def _leave(self, refusal: Refusal, code: int) -> None:
        """Say goodbye as soon as a frame of the instance has ended; nothing follows it. What the caller says to it
        still passes, so that the instance hears it too."""
        self.code = refusal.code
        self.leaves = self.gateway.clock() + GOODBYE_SECONDS
        if not self.frames.closed:
            self.farewell = websocket.close_frame(code, refusal.message[:100])
            self._say_farewell()
        if self.tunnel is not None:
            self.tunnel.resume()  # what still comes of it goes nowhere, but its end has to be seen

    def _say_farewell(self) -> None:
        if self.farewell and self.frames.between:
            farewell, self.farewell = self.farewell, b""
            self._write_last(farewell)

    def _write_last(self, frame: bytes) -> None:
        self.bytes_out += len(frame)
        self.behind.write(frame)

    def _end(self) -> None:
        """Both sides end once each has what was sent to it."""
        self.settle(SWITCHED)
        self.release()

    def release(self) -> None:
        was_open, tunnel, self.tunnel = self.open, self.tunnel, None
        if was_open:
            self.gateway.sockets[self.admitted.route.endpoint_id] -= 1
        super().release()
        if was_open and tunnel is not None:
            tunnel.close()

    def _sound(self) -> bool | None:
        if self._settled == SWITCHED:
            return self.code != LOST.code
        return super()._sound()


class Tunnel(asyncio.Protocol):
    """The instance's side: a head of 101, then bytes. An answer in HTTP goes back to the connection it came on."""

    def __init__(self, socket: Socket, connection: Connection, transport: asyncio.Transport) -> None:
        self.socket = socket
        self.connection = connection
        self.transport = transport
        self.full = False  # the instance takes no more at the moment
        self._paused = False
        self._head: bytes | None = b""  # what came of it; None once it is read
        transport.set_protocol(self)

    def write(self, data: bytes) -> bool:
        """Whether the instance takes no more at the moment."""
        self.transport.write(data)
        return self.full

    def pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def close(self) -> None:
        """Hang up once the instance has taken what was sent, and soon in any case."""
        self.transport.close()
        asyncio.get_running_loop().call_later(GOODBYE_SECONDS, self.transport.abort)

    # ── for the event loop ───────────────────────────────────────────────────────────────────────
    def data_received(self, data: bytes) -> None:
        if self._head is None:
            self.socket.from_instance(data)
            return
        self._head += data
        if not self._head.startswith(SWITCHING[: len(self._head)]):
            self._hand_back(self._head)
        elif b"\r\n\r\n" in self._head:
            self._open(self._head)
        elif len(self._head) > HEADER_LIMIT:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.closed = True
        self.socket.instance_left()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self.socket.instance_ready()

    def _hand_back(self, head: bytes) -> None:
        connection = self.connection
        self.transport.set_protocol(connection)
        connection.send(b"", self.socket)
        connection.data_received(head)

    def _open(self, head: bytes) -> None:
        found = Found()
        try:
            httptools.HttpResponseParser(found).feed_data(head)
        except httptools.HttpParserUpgrade as upgrade:
            self._head = None
            self.socket.opened(found.headers)
            rest = head[upgrade.args[0] :]
            if rest:
                self.socket.from_instance(rest)
        except httptools.HttpParserError:
            self.transport.abort()
        else:
            self.transport.abort()


class Found:
    """The headers that a parser finds."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        known = self.headers.get(name)
        joint = b"\n" if name == b"set-cookie" else b", "
        self.headers[name] = value if known is None else known + joint + value
