"""A page's socket without a page: it listens, and comes back when the line breaks, as the page's script does."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

Json = dict[str, Any]
SILENCE = 8.0  # seconds without a word (the server beats every 1.5) after which a page gives a line up


class Closed(ConnectionError):
    """The server closed the line."""


class PageSocket:
    """A websocket client that reads text; enough of RFC 6455 for a server that we know."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def hear(self) -> Json:
        """The next message. Raises Closed."""
        while True:
            try:
                first, second = await self.reader.readexactly(2)
                size = second & 0x7F
                if size == 126:
                    (size,) = struct.unpack("!H", await self.reader.readexactly(2))
                elif size == 127:
                    (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
                text = await self.reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError) as problem:
                raise Closed(str(problem)) from None
            kind = first & 0x0F
            if kind == 0x8:
                raise Closed(f"code {int.from_bytes(text[:2])}")
            if kind == 0x9:
                self._write(0xA, text)
            elif kind == 0x1:
                message: Json = json.loads(text)
                return message

    def say(self, message: Json) -> None:
        self._write(0x1, json.dumps(message).encode())

    def _write(self, kind: int, data: bytes) -> None:
        mask = os.urandom(4)
        size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + struct.pack("!H", len(data))
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
        self.writer.write(bytes([0x80 | kind]) + size + mask + masked)


@asynccontextmanager
async def page_socket(port: int, path: str, cookie: str) -> AsyncIterator[PageSocket]:
    """An open line. Raises ConnectionError when the console does not give one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    try:
        host = f"127.0.0.1:{port}"
        lines = [
            f"GET {path} HTTP/1.1",
            *(f"Host: {host}", f"Origin: http://{host}", f"Cookie: {cookie}"),
            *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        ]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            raise ConnectionError("the console hung up") from None
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise ConnectionError(head.split(b"\r\n", 1)[0].decode())
        yield PageSocket(reader, writer)
    finally:
        writer.close()


class Listener:
    """`with Listener(port, path, cookie) as page:` keeps one page's line open and notes what comes, and when."""

    def __init__(self, port: int, path: str, cookie: str) -> None:
        self.port, self.path, self.cookie = port, path, cookie
        self.heard: list[tuple[float, Json]] = []
        self.breaks: list[str] = []
        self._ending: Callable[[], object] = lambda: None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._stay()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending()
        assert self._thread
        self._thread.join(10)

    def ticks_since(self, moment: float) -> int:
        return sum(at >= moment and message["type"] == "tick" for at, message in list(self.heard))

    async def _stay(self) -> None:
        listening = asyncio.create_task(self._listen())
        loop = asyncio.get_running_loop()
        self._ending = lambda: loop.call_soon_threadsafe(listening.cancel)
        await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            try:
                async with page_socket(self.port, self.path, self.cookie) as line:
                    while True:
                        async with asyncio.timeout(SILENCE):
                            message = await line.hear()
                        self.heard.append((time.monotonic(), message))
            except (OSError, TimeoutError) as problem:
                self.breaks.append(str(problem) or type(problem).__name__)
            await asyncio.sleep(1)
