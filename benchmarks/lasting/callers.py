"""Callers of every kind that come and go: what years of production do to a gateway, in minutes."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.lasting.ground import PATIENCE, Ground
from benchmarks.lasting.readers import END
from tests.gateway.test_fuzz import malformed

LEFT = ({"silent": True}, {"stream": True, "silent": True}, {"stream": True, "max_tokens": 10_000})
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
REFUSED = (501, 505)  # of 5xx, those that tell the caller what it did wrong
SMALL = 16 * 1024  # bytes of a slow reader's buffers


@dataclass
class Visits:
    """What was done so far, by kind; `wrong` is what should not have happened, in words."""

    ground: Ground
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    broken: int = 0

    async def keep(self, kind: str, over: asyncio.Event) -> None:
        """Visit in this way again and again."""
        while not over.is_set():
            try:
                async with asyncio.timeout(PATIENCE):
                    await KINDS[kind][0](self)
            except (OSError, EOFError, TimeoutError) as trouble:
                self.wrong[f"{kind}: {trouble!r}"] += 1
            self.done[kind] += 1


@asynccontextmanager
async def line_to(visits: Visits, room: int | None = None) -> AsyncIterator[Pair]:
    """A new connection; with `room`, one that takes little before somebody reads it."""
    ends = socket.socket()
    ends.setblocking(False)
    if room is not None:
        ends.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    try:
        await asyncio.get_running_loop().sock_connect(ends, ("127.0.0.1", visits.ground.start.port))
    except OSError:
        ends.close()
        raise
    reader, writer = await asyncio.open_connection(sock=ends, limit=room or 65536)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def asks(line: Pair, request: bytes) -> None:
    """One whole JSON answer. ConnectionError if it is none."""
    reader, writer = line
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    if b" 200 " not in head[:15] or b'"usage"' not in body:
        raise ConnectionError(head[:40])


async def newcomer(visits: Visits) -> None:
    async with line_to(visits) as line:
        await asks(line, visits.ground.request())


async def regular(visits: Visits) -> None:
    """Many requests on one connection, some of them streams."""
    whole, streamed = visits.ground.request(), visits.ground.request(stream=True, max_tokens=5)
    async with line_to(visits) as line:
        for number in range(visits.dice.randint(2, 200)):
            if number % 10:
                await asks(line, whole)
            else:
                line[1].write(streamed)
                await line[0].readuntil(END)


async def leaver(visits: Visits) -> None:
    """One that hangs up: before anything came, or in the middle."""
    wish: dict[str, Any] = visits.dice.choice(LEFT)
    async with line_to(visits) as (reader, writer):
        writer.write(visits.ground.request(**wish))
        if "silent" in wish:
            await asyncio.sleep(visits.dice.random() / 5)
        else:
            for _ in range(visits.dice.randint(1, 20)):
                await reader.readuntil(b"\n\n")


async def breaker(visits: Visits) -> None:
    """Bytes that are nearly a request."""
    visits.broken += 1
    data, dice = malformed(visits.broken)
    answer = b""
    async with line_to(visits) as (reader, writer):
        writer.write(data)
        if dice.random() < 0.2:
            writer.write_eof()
        try:
            async with asyncio.timeout(dice.random() / 10):
                answer = await reader.read(65536)
        except (ConnectionError, TimeoutError):
            return  # it got what it deserves, or waits for the rest
    for found in map(int, STATUS.findall(answer)):
        if found >= 500 and found not in REFUSED:
            visits.wrong[f"breaker: {found} for number {visits.broken}"] += 1


async def sipper(visits: Visits) -> None:
    """A long stream read slowly; then all the rest at once, or a hang-up, or not another byte."""
    end = visits.dice.choice(("read", "leave", "stall"))
    async with line_to(visits, SMALL) as (reader, writer):
        writer.write(visits.ground.request(stream=True, flood=6))
        for _ in range(visits.dice.randint(5, 50)):
            await reader.readexactly(4096)
            await asyncio.sleep(0.02)
        if end == "stall":
            await asyncio.sleep(visits.dice.random() * 3)
        elif end == "read":
            await _drain(reader)


async def _drain(reader: asyncio.StreamReader) -> None:
    tail = b""
    while not tail.endswith(END):
        data = await reader.read(SMALL)
        if not data:
            raise EOFError("a stream broke off")
        tail = (tail + data)[-len(END) :]


KINDS: Mapping[str, tuple[Callable[[Visits], Awaitable[None]], int]] = {
    "newcomer": (newcomer, 4),
    "regular": (regular, 4),
    "leaver": (leaver, 16),
    "breaker": (breaker, 4),
    "sipper": (sipper, 4),
}  # and how many at a time
