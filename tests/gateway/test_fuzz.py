"""Malformed requests without number: none may cost a 5xx of ours, a hang, or anything that is left over.

`FUZZ_REQUESTS` says how many (2,000 unless told), `FUZZ_SEED` with which dice; a failure names its number, and
the same seed makes the same requests again.
"""

import asyncio
import gc
import logging
import os
import random
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httptools
import pytest

from gateway import line as transport
from gateway.client import Limits
from tests.gateway.caller import CHAT, HELLO, MODELS, STREAMED, asked, chunked, still_serves
from tests.gateway.engine import Engine
from tests.gateway.house import House, house, until

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "3"))
AT_ONCE = 16
DEADLINE = 60.0  # for one connection to end; its limits below are far less
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")

SEEDS = [
    asked(body=HELLO),
    asked(body=STREAMED),
    asked("GET", MODELS),
    asked("GET", "/healthz"),
    asked("GET", "/e/tiny/health", version="1.0", host=()),
    asked("HEAD", MODELS, "connection: close"),
    asked("OPTIONS", CHAT, "origin: http://evil.example"),
    asked("POST", CHAT, "transfer-encoding: chunked") + chunked(HELLO[:10], HELLO[10:]),
    asked("POST", CHAT, "transfer-encoding: chunked") + chunked(HELLO, last=b"0;a=b\r\nx-sum: 1\r\n\r\n"),
    asked("POST", CHAT, "expect: 100-continue", body=HELLO),
    asked("POST", CHAT, "connection: upgrade", "upgrade: h2c", "http2-settings: AAMAAABk", body=HELLO),
    asked("GET", "http://tiny.local.localhost/v1/models?a=b#c"),
    asked(body=HELLO, version="1.0"),
    asked("POST", "/e/tiny/v1/embeddings", "content-encoding: gzip", body=b"\x1f\x8b\x08"),
    asked("POST", CHAT, body=b'{"messages": [[[[[[{"\\ud800": 1e999}]]]]]], "stream": "x"}'),
]
WORDS = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b"\xff", b"\x0b", b"%00", b"%", b"..", b"//"),
    *(b"content-length: 5\r\n", b"content-length: -1\r\n", b"content-length: 99999999999\r\n"),
    *(b"transfer-encoding: chunked\r\n", b"transfer-encoding: gzip, chunked\r\n", b"Content-Length:\r\n"),
    *(b"Transfer-Encoding : chunked\r\n", b" folded: yes\r\n", b"x: " + b"y" * 5000 + b"\r\n", b"?", b'"'),
    *(b"connection: close\r\n", b"connection: keep-alive, upgrade\r\n", b"upgrade: websocket\r\n"),
    *(b"host: y\r\n", b"expect: 100-continue\r\n", b"0\r\n\r\n", b"ffffffff\r\n", b"{", b"[" * 2000),
    *(b"HTTP/0.9", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    *(b"CONNECT ", b"HEAD ", b"GET ", b"POST ", b"\x16\x03\x01", b"authorization: Bearer x\r\n", b"\xe2\x82\xac"),
]


# ── mutations ────────────────────────────────────────────────────────────────────────────────────
def flip(dice: random.Random, data: bytearray) -> None:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def replace(dice: random.Random, data: bytearray) -> None:
    data[dice.randrange(len(data))] = dice.randrange(256)


def insert(dice: random.Random, data: bytearray) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.choice(WORDS)


def insert_line(dice: random.Random, data: bytearray) -> None:
    """A word at the beginning of a line, where headers are."""
    ends = [match.end() for match in re.finditer(rb"\r\n", data)] or [0]
    at = dice.choice(ends)
    data[at:at] = dice.choice(WORDS)


def drop(dice: random.Random, data: bytearray) -> None:
    at = dice.randrange(len(data))
    del data[at : at + dice.randint(1, 20)]


def cut(dice: random.Random, data: bytearray) -> None:
    del data[dice.randrange(1, len(data) + 1) :]


def repeat(dice: random.Random, data: bytearray) -> None:
    at = dice.randrange(len(data))
    part = data[at : at + dice.randint(1, 60)]
    data[at:at] = part * dice.randint(1, 4)


def splice(dice: random.Random, data: bytearray) -> None:
    other = dice.choice(SEEDS)
    data[dice.randrange(len(data)) :] = other[dice.randrange(len(other)) :]


def noise(dice: random.Random, data: bytearray) -> None:
    data[:] = dice.randbytes(dice.randint(1, 300))


MUTATIONS: list[Callable[[random.Random, bytearray], None]] = [
    *(flip, replace, drop, cut, repeat, splice, noise),
    *(insert, insert, insert_line, insert_line),
]


def malformed(number: int) -> tuple[bytes, random.Random]:
    """The request of this number, and the dice for how it is sent."""
    dice = random.Random(f"{SEED}-{number}")
    data = bytearray(dice.choice(SEEDS) * dice.choice((1, 1, 1, 2, 3)))
    for _ in range(dice.choice((1, 1, 2, 3, 5))):
        dice.choice(MUTATIONS)(dice, data)
        if not data:
            data += b"\r"
    return bytes(data), dice


# ── sending ──────────────────────────────────────────────────────────────────────────────────────
async def tried(gateway: House, number: int) -> list[int]:
    """Send one in one to three parts, read all that comes, and return the statuses. Raises TimeoutError, and
    HttpParserError when what came is no row of answers."""
    data, dice = malformed(number)
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 1, 2))))
    ending = dice.choice(("read", "read", "read", "half", "abort"))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if not writer.is_closing():  # it may hang up while we are sending
                writer.write(data[start:end])
            await asyncio.sleep(0)
        if ending == "abort":
            return []
        if ending == "half" and not writer.is_closing():
            writer.write_eof()
        async with asyncio.timeout(DEADLINE):
            answer = await read_on(reader)
        if b"HEAD" not in data:  # whose answers announce what does not come
            httptools.HttpResponseParser(object()).feed_data(answer)
        return [int(found) for found in STATUS.findall(answer)]
    finally:
        writer.transport.abort()


async def read_on(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    try:
        while part := await reader.read(2**16):
            answer += part
    except ConnectionError:
        pass
    return answer


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture
async def bounded(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A gateway whose limits are met soon, so that waiting is an end and not a hang."""
    for name, value in (("HEAD_SECONDS", 0.2), ("IDLE_SECONDS", 0.2), ("LINGER_SECONDS", 0.2)):
        monkeypatch.setattr(transport, name, value)
    monkeypatch.setattr("gateway.server.LOOK_SECONDS", 0.05)
    limits = Limits(body_bytes=2**16, body_seconds=0.2)
    async with house(tmp_path, engine, limits=limits) as running:
        yield running


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted by /proc")
async def test_malformed_requests_cost_nothing(
    bounded: House, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gateway.access")
    problems: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(str(context)))
    await still_serves(bounded)
    await until(lambda: not bounded.server.lines, "the first to be let go")
    memory, began = resident(), time.monotonic()
    files, tasks, numbers, seen = descriptors(), len(asyncio.all_tasks()), iter(range(REQUESTS)), Counter[int]()

    async def work() -> None:
        for number in numbers:
            try:
                statuses = await tried(bounded, number)
            except (TimeoutError, httptools.HttpParserError) as wrong:
                problems.append(f"{number} hung or was answered in tatters, {wrong!r}: {malformed(number)[0]!r}")
                continue
            seen.update(statuses)
            if any(status >= 500 and status not in (501, 505) for status in statuses):
                problems.append(f"{number} got {statuses}: {malformed(number)[0]!r}")
            for own in (bounded.records, engine.seen, engine.heads):  # the test's lists would look like a leak
                own.clear()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    grown, took = (resident() - memory) / 2**20, time.monotonic() - began
    figures = f"{REQUESTS} requests of seed {SEED} in {took:.0f} s, {grown:+.1f} MiB"
    sys.stdout.write(f"{figures}: {dict(sorted(seen.items()))}\n")
    assert problems == []
    assert grown < 64, figures  # caches fill; what each request left behind would be far more in a long run
    assert seen[200] > 0
    assert seen[400] > 0
    await until(lambda: not bounded.server.lines, "every connection to be let go")
    await until(lambda: engine.open == 0, "the engine to be let go of")
    await until(lambda: bounded.app.gateway.balancer.in_flight == {}, "no request to be in flight")
    await still_serves(bounded)
    await until(lambda: not bounded.server.lines, "the last to be let go")
    bounded.app.gateway.pool.close()
    gc.collect()
    await until(lambda: len(asyncio.all_tasks()) <= tasks, "every task to have ended")
    await until(lambda: descriptors() <= files, f"every file to be closed, there were {files}")
