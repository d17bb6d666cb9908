"""What the gateway needs of whoever called it: the seam between the core and a server."""

from dataclasses import dataclass
from typing import Protocol

from gateway.admit import Request
from gateway.behind import Behind
from gateway.errors import Headers, Refusal


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request: bytes of its body, seconds of silence before a heartbeat and before giving up, and of
    a websocket: seconds in which nothing moves before it is ended."""

    body_bytes: int = 8 * 2**20
    body_seconds: float = 60.0
    heartbeat_seconds: float = 15.0
    silence_seconds: float = 600.0
    socket_idle_seconds: float = 600.0


class Owner(Protocol):
    """Who answers a call. The line tells it what happens to the caller; it never waits in here."""

    def body_came(self) -> None:
        """The body that `Client.body` did not have yet is whole, or it is known why it will not be."""

    def caller_left(self) -> None:
        """The caller hung up."""

    def caller_ready(self) -> None:
        """The caller takes more again, after `Client.full`."""

    def look(self, now: float) -> None:
        """Called a few times a second, with the loop's time."""

    def cut(self) -> None:
        """The gateway ends, and its patience with it: end the request now."""


class Client(Protocol):
    """One caller waiting for one answer."""

    request: Request
    request_id: bytes
    owner: Owner | None
    started: bool
    """Whether status and headers are on their way, so that only the body is left to speak with."""
    streaming: bool
    """Whether what was started is a stream of events."""
    extra: Headers
    """On every answer; for the page of another origin only if it may call."""

    @property
    def peer(self) -> str:
        """The address that it is connected from, which may be a proxy's; "" where there is none."""

    @property
    def secure(self) -> bool:
        """Whether that connection is one over TLS."""

    @property
    def behind(self) -> Behind | None:
        """What comes behind a request that asks for a websocket; None for any other."""

    @property
    def full(self) -> bool:
        """Whether the caller takes no more at the moment: what is sent all the same is kept here."""

    def body(self, limits: Limits) -> bytes | Refusal | None:
        """The whole request body, or why it isn't taken (413, 408, 400); None until `Owner.body_came`."""

    def answer(self, status: int, kind: bytes, body: bytes, headers: Headers = (), lines: bytes = b"") -> None:
        """A whole answer; no value may hold a line break. `lines`: more of its head, each with its end."""

    def start(self, status: int, headers: Headers) -> None:
        """Status and headers of one that comes in parts."""

    def send(self, data: bytes) -> bool:
        """A part of the body, now. Whether the caller is full."""

    def end(self, data: bytes = b"") -> None:
        """The last part of the body."""

    def abort(self) -> None:
        """Cut the answer off so that the caller can tell it isn't whole."""

    def over(self) -> None:
        """Everything that was held for this call is let go of: the line's next request may begin."""
