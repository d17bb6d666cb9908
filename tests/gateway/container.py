"""A container with paths of its own: it remembers what it is asked, byte for byte, and answers as it is told."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.gateway.engine import Engine


@dataclass(frozen=True)
class Asked:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]

    def one(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) <= 1, found
        return found[0] if found else None


def plain(*lines: str, status: str = "200 OK", body: bytes = b"done") -> bytes:
    """An answer with its length; `lines` are further headers as they are."""
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


@dataclass
class Container(Engine):
    """`answer` writes an answer and says whether the connection stays."""

    asked: list[Asked] = field(default_factory=list)
    answer: Callable[[Asked, asyncio.StreamWriter], Awaitable[bool]] | None = None

    def say(self, *parts: bytes, stays: bool = True) -> None:
        """What every answer is from here on."""

        async def write(_: Asked, writer: asyncio.StreamWriter) -> bool:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return stays

        self.answer = write

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(name, value) for name, value in (line.split(": ", 1) for line in lines)]
        body = await reader.readexactly(int(dict(headers).get("content-length", "0")))
        self.asked.append(asked := Asked(method, target, headers, body))
        self.open += 1
        watch = asyncio.create_task(reader.read(1))
        work = asyncio.create_task(self.answered(asked, writer))
        try:
            await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.hung_up += 1
                return False
            return work.result()
        finally:
            self.open -= 1
            for task in (watch, work):
                task.cancel()
            await asyncio.gather(watch, work, return_exceptions=True)

    async def answered(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        if self.answer is not None:
            return await self.answer(asked, writer)
        writer.write(plain("content-type: text/plain", body=b"" if asked.method == "HEAD" else b"done"))
        await writer.drain()
        return True
