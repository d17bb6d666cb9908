"""What the gateway needs of whoever called it: the seam between the core and a server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import Headers, Refusal


class ClientLeft(Exception):
    """The caller hung up."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request: bytes of its body, seconds of silence before a heartbeat and before giving up."""

    body_bytes: int = 8 * 2**20
    body_seconds: float = 60.0
    heartbeat_seconds: float = 15.0
    silence_seconds: float = 600.0


class Client(Protocol):
    """One caller waiting for one answer."""

    @property
    def started(self) -> bool:
        """Whether status and headers are on their way, so that only the body is left to speak with."""

    @property
    def streaming(self) -> bool:
        """Whether what was started is a stream of events."""

    async def body(self, limits: Limits) -> bytes | Refusal:
        """The whole request body, or why it isn't taken (413, 408). Raises ClientLeft."""

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` as soon as the caller hangs up, until `end`."""

    async def start(self, status: int, headers: Headers) -> None:
        """Status and headers; no value may hold a line break."""

    async def send(self, data: bytes) -> None:
        """A part of the body, now; waits while the caller takes no more."""

    async def ready(self) -> None:
        """Return once the caller can take more at once, so that the next `end` does not wait."""

    async def end(self, data: bytes = b"") -> None:
        """The last part of the body; without a wait in it when called right after `ready`."""

    def abort(self) -> None:
        """Cut the answer off so that the caller can tell it isn't whole."""
