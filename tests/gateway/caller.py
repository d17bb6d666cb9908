"""A caller that speaks in bytes, and an engine that answers in bytes: what a client library would tidy away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tests.gateway.engine import Engine
from tests.gateway.house import ALICE, PATIENCE, House

CHAT = "/e/tiny/v1/chat/completions"
MODELS = "/e/tiny/v1/models"
HELLO = b'{"messages":[{"role":"user","content":"hello"}]}'
STREAMED = b'{"messages":[],"stream":true}'

CHUNKED = "transfer-encoding: chunked"
AUTH = f"authorization: Bearer {ALICE}"


def asked(
    method: str = "POST",
    target: str = CHAT,
    *lines: str,
    body: bytes | None = None,
    version: str = "1.1",
    host: Sequence[str] = ("host: x",),
) -> bytes:
    """A request of Alice's; `body` comes with its length. `lines` are further headers as they are."""
    length = [] if body is None else [f"content-length: {len(body)}"]
    head = [f"{method} {target} HTTP/{version}", *host, AUTH, *length, *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + (body or b"")


def announced(length: int, *lines: str, target: str = CHAT) -> bytes:
    """A head whose body is still to come."""
    return asked("POST", target, f"content-length: {length}", *lines)


def chunked(*parts: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + last


@dataclass(frozen=True)
class Answer:
    """`whole` is False for a chunked body that ended without its last chunk, or one shorter than announced."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool = True

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str | None:
        """Of an error, whose shape is checked to be OpenAI's."""
        found = self.json()
        assert set(found) == {"error"}
        assert {"message", "type", "param", "code"} <= set(found["error"])
        assert found["error"]["message"]
        assert self.headers["content-type"] == "application/json"
        code: str | None = found["error"]["code"]
        return code

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Give it to the kernel; waits while the gateway takes no more. ConnectionError once it hung up."""
        if self.writer.is_closing():
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Answer:
        """The next answer's head; its body is left to be read."""
        async with asyncio.timeout(PATIENCE):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        names = [name for name, _ in pairs]
        assert len(names) == len(set(names)), f"a header came twice: {names}"
        version, status, _ = first.split(" ", 2)
        return Answer(version, int(status), dict(pairs), b"")

    async def answer(self, *, mute: bool = False) -> Answer:
        """The next answer, whole; `mute` when none of its body may come, as after HEAD."""
        head = await self.head()
        async with asyncio.timeout(PATIENCE):
            body, whole = (b"", True) if mute or head.status == 204 else await self._body(head.headers)
        return Answer(head.version, head.status, head.headers, body, whole)

    async def _body(self, headers: dict[str, str]) -> tuple[bytes, bool]:
        if headers.get("transfer-encoding") == "chunked":
            return await self._chunks()
        if "content-length" not in headers:
            return await self.reader.read(), True
        try:
            return await self.reader.readexactly(int(headers["content-length"])), True
        except asyncio.IncompleteReadError as short:
            return short.partial, False

    async def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        try:
            while True:
                part = await self.chunk()
                if not part:
                    return body, True
                body += part
        except asyncio.IncompleteReadError:
            return body, False

    async def chunk(self) -> bytes:
        """One chunk; b"" for the last."""
        async with asyncio.timeout(PATIENCE):
            size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def ended(self) -> bytes:
        """What came until the gateway hung up; TimeoutError if it doesn't."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    def hang_up(self) -> None:
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def caller(gateway: House, *, limit: int = 2**20) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=limit)
    try:
        yield Caller(reader, writer)
    finally:
        writer.transport.abort()


async def once(gateway: House, data: bytes) -> Answer:
    """Send these bytes on a connection of their own, and read one answer."""
    async with caller(gateway) as line:
        await line.send(data)
        return await line.answer()


async def still_serves(gateway: House) -> None:
    """Nothing that a test did may be felt by the next caller."""
    assert (await once(gateway, asked(body=HELLO))).status == 200


@dataclass
class Script(Engine):
    """An engine whose every answer is written by `play`, which returns whether the connection stays."""

    play: Callable[[asyncio.StreamWriter], Awaitable[bool]] | None = None

    async def _answer(self, head: str, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        assert self.play is not None
        return await self.play(writer)


def says(*parts: bytes, stays: bool = True) -> Callable[[asyncio.StreamWriter], Awaitable[bool]]:
    """A play that writes these bytes, one part after the other."""

    async def play(writer: asyncio.StreamWriter) -> bool:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        return stays

    return play
