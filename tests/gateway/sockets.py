"""A container that speaks websockets, and clients of it through a gateway."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Origin, Subprotocol

from gateway.routes import Upstream
from tests.gateway.caller import Caller, asked
from tests.gateway.house import ALICE, House

LARGEST = 32 * 2**20
KEY = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
WISH = ("connection: keep-alive, Upgrade", "upgrade: websocket", "sec-websocket-version: 13")


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


@dataclass
class Speaker:
    """Talks to each socket by `act`; an echo unless told otherwise. At /plain it answers in HTTP."""

    act: Callable[[ServerConnection], Awaitable[None]] = echo
    subprotocols: Sequence[Subprotocol] = ()
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    ended: list[tuple[int | None, str | None]] = field(default_factory=list)  # as it saw them: code and reason
    sockets: list[ServerConnection] = field(default_factory=list)
    _server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._talk,
            "127.0.0.1",
            0,
            process_request=self._look,
            select_subprotocol=self._choose,
            max_size=LARGEST,
            ping_interval=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            for one in self.sockets:
                one.transport.abort()
            self._server.close()
            await self._server.wait_closed()

    async def _talk(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        with contextlib.suppress(ConnectionClosed):
            await self.act(socket)
        await socket.wait_closed()
        self.ended.append((socket.close_code, socket.close_reason))

    def _choose(self, _: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return next((one for one in offered if one in self.subprotocols), None)

    def _look(self, socket: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        return socket.respond(HTTPStatus.IM_A_TEAPOT, "no socket here\n") if request.path == "/plain" else None

    def upstream(self, name: str = "tiny-0") -> Upstream:
        return Upstream(name, "127.0.0.1", self.port, revision_id=7)


@contextlib.asynccontextmanager
async def dialled(
    gateway: House | int,
    path: str = "/e/tiny/ws",
    *,
    key: str | None = ALICE,
    origin: str | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[ClientConnection]:
    """A socket through the gateway. Raises what the handshake does."""
    port = gateway if isinstance(gateway, int) else gateway.port
    more = ({"authorization": f"Bearer {key}"} if key else {}) | (headers or {})
    options = {"max_size": LARGEST, "ping_interval": None, "proxy": None} | options
    scheme = "wss" if "ssl" in options else "ws"
    async with connect(
        f"{scheme}://127.0.0.1:{port}{path}",
        additional_headers=more,
        origin=Origin(origin) if origin else None,
        **options,
    ) as socket:
        yield socket


async def ending(socket: ClientConnection) -> tuple[int | None, str]:
    """How it ended, once it has: 1006 where nobody said goodbye."""
    async with asyncio.timeout(60):
        await socket.wait_closed()
    return socket.close_code, socket.close_reason or ""


async def attempt(gateway: House | int, path: str = "/e/tiny/ws", **options: Any) -> None:
    """Open one and close it. Raises what the handshake does."""
    async with dialled(gateway, path, **options):
        pass


def wish(*lines: str, target: str = "/e/tiny/ws", method: str = "GET", version: str = "1.1") -> bytes:
    return asked(method, target, *(lines or (*WISH, KEY)), version=version)


async def opened(line: Caller) -> None:
    await line.send(wish())
    assert (await line.head()).status == 101


def open_now(gateway: House) -> int:
    return sum(gateway.app.gateway.sockets.values())
