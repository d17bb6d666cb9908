"""A gateway killed under load: after the next start, what was metered is what was answered."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.gateway import gatewayd
from tests.gateway.engine import Engine
from tests.gateway.house import ALICE, ASK, until
from tir_console.up.ports import free_port

CHAT = "/e/tiny/v1/chat/completions"
CALLERS = 8


@pytest.fixture
def port() -> int:
    return free_port()


@contextlib.contextmanager
def process(
    folder: Path, port: int, engine: Engine, *, under: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway of its own, started by the command `under`, if there is one."""
    command = [sys.executable, "-m", "tests.gateway.gatewayd", str(folder), str(port), str(engine.port)]
    running = subprocess.Popen([*under, *command], cwd=Path(__file__).parents[2])
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGKILL)
        running.wait()


@contextlib.asynccontextmanager
async def ready(port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client, once the gateway says that it is ready."""
    limits = httpx.Limits(max_connections=32)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"authorization": f"Bearer {ALICE}"},
        limits=limits,
        trust_env=False,
        timeout=120,
    ) as client:
        async with asyncio.timeout(120):
            while not await answers(client):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield client


async def answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def load(client: httpx.AsyncClient, *, stream: bool, counts: dict[str, int]) -> None:
    """Ask without end, counting whole answers, until the gateway is gone."""
    while True:
        try:
            answer = await client.post(CHAT, json={**ASK, "stream": stream})
        except httpx.TransportError:
            return
        assert answer.status_code == 200
        counts["stream" if stream else "whole"] += 1


async def end(running: subprocess.Popen[bytes]) -> int:
    """End it as a supervisor does, and wait."""
    running.send_signal(signal.SIGTERM)
    return await asyncio.to_thread(running.wait, 120)


async def test_a_gateway_killed_under_load_has_metered_what_it_answered(tmp_path: Path, port: int) -> None:
    counts = {"stream": 0, "whole": 0}
    async with Engine() as engine:
        for target in (150, 300):
            with process(tmp_path, port, engine) as running:
                async with ready(port) as client:
                    workers = [
                        asyncio.create_task(load(client, stream=bool(n % 2), counts=counts))
                        for n in range(CALLERS)
                    ]
                    await until(lambda goal=target: sum(counts.values()) >= goal, "answers", seconds=120)
                    running.kill()
                    await asyncio.gather(*workers)
        with process(tmp_path, port, engine) as running:
            async with ready(port):
                pass
            assert await end(running) == 0
    metered = sum(gatewayd.read(tmp_path / "flushed.json").values())
    assert min(counts.values()) > 0
    # A kill between the record and the write of the same answer's last bytes, microseconds apart, is the
    # one way to differ; it can only have counted an answer that a caller lost, never lost one that came.
    assert 0 <= metered - sum(counts.values()) <= 2 * CALLERS  # each one's, at each kill


async def test_told_to_end_it_finishes_what_it_has_begun(tmp_path: Path, port: int) -> None:
    async with Engine(behaviour="hang after first") as engine, asyncio.timeout(300):
        with process(tmp_path, port, engine) as running:
            async with ready(port) as client:
                asked = asyncio.create_task(client.post(CHAT, json={**ASK, "stream": True}))
                await until(lambda: engine.open == 1, "the engine to be asked")
                running.send_signal(signal.SIGTERM)
                await until(lambda: not listens(port), "the gateway to take no more")
                engine.hold.set()
                answer = await asked
            assert answer.text.endswith("data: [DONE]\n\n")
            assert await asyncio.to_thread(running.wait, 120) == 0
    assert sum(gatewayd.read(tmp_path / "flushed.json").values()) == 1


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_second_gateway_beside_the_first_counts_under_its_own_name(tmp_path: Path, port: int) -> None:
    async with Engine() as engine:
        with process(tmp_path, port, engine) as one:
            async with ready(port) as client:
                await client.post(CHAT, json=ASK)
                with process(tmp_path, 0, engine) as two:
                    await until(lambda: len(list((tmp_path / "spool").iterdir())) == 2, "two spools", seconds=120)
                    assert two.poll() is None
            assert await end(one) == 0
    assert sum(gatewayd.read(tmp_path / "flushed.json").values()) == 1
