"""From a tick that was computed to the pages that show it: python -m benchmarks.live_ticks [VIEWERS]

So many sockets on one endpoint's page of a real daphne; a tick a second is computed once, as the worker's beat
does it, and the time from its "at" to each page is noted. The same with one viewer says what a viewer costs.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

import psutil

from benchmarks import stage
from benchmarks.daphned import daphne
from tests.failures.listener import page_socket

TICKS = 12


@dataclass(frozen=True)
class Measured:
    """Milliseconds from the start of a tick's computing: until it was computed, and until pages had it."""

    viewers: int
    computed_ms: float
    first_ms: float
    p50_ms: float
    p95_ms: float
    worst_ms: float
    received: int
    expected: int
    cpu_percent: float  # of the console, while a tick a second came


async def watch(port: int, pid: int, path: str, cookie: str, viewers: int) -> Measured:
    from asgiref.sync import sync_to_async  # noqa: PLC0415

    from monitoring import tick  # noqa: PLC0415

    came: dict[str, list[float]] = {}
    computed: list[float] = []
    process = psutil.Process(pid)
    async with AsyncExitStack() as lines:
        sockets = [await lines.enter_async_context(page_socket(port, path, cookie)) for _ in range(viewers)]

        async def listen(number: int) -> None:
            while True:
                message = await sockets[number].hear()
                if message["type"] == "tick" and "charts" not in message["data"]:
                    came.setdefault(message["at"], []).append(time.time())

        listening = [asyncio.create_task(listen(number)) for number in range(viewers)]
        await asyncio.sleep(3.0)  # until the last of them is let in and marked
        used, began = sum(process.cpu_times()[:2]), time.monotonic()
        for _ in range(TICKS):
            at = datetime.now(UTC)
            await sync_to_async(tick.tick)(at=at)
            computed.append(1000 * (time.time() - at.timestamp()))
            await asyncio.sleep(max(0.0, at.timestamp() + 1.0 - time.time()))
        cpu = 100 * (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - began)
        for one in listening:
            one.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    spans = {
        at: sorted(1000 * (one - datetime.fromisoformat(at).timestamp()) for one in times)
        for at, times in came.items()
    }
    later = list(spans.values())[1:] or list(spans.values())  # the first pays for what is made once
    return Measured(
        viewers,
        round(median(computed[1:]), 1),
        round(median(one[0] for one in later), 1),
        round(median(one[len(one) // 2] for one in later), 1),
        round(median(one[int(len(one) * 0.95)] if len(one) > 1 else one[0] for one in later), 1),
        round(max(one[-1] for one in later), 1),
        sum(len(one) for one in spans.values()),
        viewers * TICKS,
        round(cpu, 1),
    )


def main(viewers: int) -> None:
    stage()
    from django.conf import settings  # noqa: PLC0415
    from django.test import Client  # noqa: PLC0415

    from tests import make  # noqa: PLC0415

    alice = make.user("alice")
    endpoint = make.endpoint(make.project(owner=alice), ready=2)
    client = Client()
    client.force_login(alice)
    cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
    path = f"/ws/projects/{endpoint.project.slug}/endpoints/{endpoint.name}/"
    with daphne() as server:
        found = [asyncio.run(watch(server.port, server.pid, path, cookie, count)) for count in (1, viewers)]
    print(f"{'viewers':>8}{'computed':>10}{'first':>8}{'p50':>8}{'p95':>8}{'worst':>8} ms{'CPU':>8} %  received")
    for one in found:
        times = f"{one.computed_ms:>10}{one.first_ms:>8}{one.p50_ms:>8}{one.p95_ms:>8}{one.worst_ms:>8}"
        print(f"{one.viewers:>8}{times}   {one.cpu_percent:>8}    {one.received}/{one.expected}")
    alone, all_ = found
    answer = {
        "benchmark": "live_ticks",
        "alone": vars(alone),
        "all": vars(all_),
        "cpu_ms_per_viewer_second": round(10 * (all_.cpu_percent - alone.cpu_percent) / max(1, viewers - 1), 3),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
