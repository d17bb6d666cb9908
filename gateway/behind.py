"""What is behind a request for a websocket on its connection: no HTTP, but bytes for whoever takes them."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.line import Line

HELD_BYTES = 16 * 1024  # that came before anybody took them


class Taker(Protocol):
    def from_caller(self, data: bytes) -> None:
        """Some bytes came."""


class Behind:
    """A caller's connection from there on. If nobody takes it over, it ends with the answer to the request."""

    def __init__(self, line: "Line", data: bytes) -> None:
        self.line = line
        self.taker: Taker | None = None
        self._held = data
        self._paused = False

    def came(self, data: bytes) -> None:
        if self.taker is not None:
            self.taker.from_caller(data)
            return
        self._held += data
        if len(self._held) > HELD_BYTES:
            self.pause()

    def take_over(self, taker: Taker) -> None:
        self.taker = taker
        held, self._held = self._held, b""
        if held:
            taker.from_caller(held)
        self.resume()

    def write(self, data: bytes) -> bool:
        """Whether the caller takes no more at the moment."""
        self.line.write(data)
        return self.line.full

    def pause(self) -> None:
        """Let the caller wait."""
        transport = self.line.transport
        if not self._paused and transport is not None and not transport.is_closing():
            self._paused = True
            transport.pause_reading()

    def resume(self) -> None:
        transport = self.line.transport
        if self._paused and transport is not None and not transport.is_closing():
            self._paused = False
            transport.resume_reading()

    @property
    def draining(self) -> bool:
        """Whether the gateway is about to end."""
        return self.line.server.draining
