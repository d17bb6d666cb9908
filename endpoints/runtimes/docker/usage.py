"""What containers use, from the engine's counters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from docker.errors import APIError

from endpoints.runtimes.base import Sampled, Unavailable
from endpoints.runtimes.docker.containers import Container, moment
from endpoints.runtimes.docker.hosts import Host, asking

FORGET_SECONDS = 600.0
GPU_QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]


class Meter:
    """Remembers the last look at each container, because CPU is a difference."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int, float]] = {}

    def read(self, host: Host, container: Container) -> Sampled | None:
        """What it uses now; None if it runs no more."""
        with asking(host) as client:
            try:
                stats = client.stats(container.id, stream=False, one_shot=True)
            except APIError as error:
                if error.status_code == 404:
                    return None
                raise
        if not stats.get("memory_stats"):
            return None
        gpu_percent, gpu_memory = gpus_of(host, container)
        networks = (stats.get("networks") or {}).values()
        blocks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
        return Sampled(
            cpu_millis=self._millis(container.id, stats),
            memory_bytes=_memory(stats["memory_stats"]),
            gpu_percent=gpu_percent,
            gpu_memory_bytes=gpu_memory,
            disk_bytes=sum(each["value"] for each in blocks if each["op"].lower() in {"read", "write"}),
            network_rx=sum(each["rx_bytes"] for each in networks),
            network_tx=sum(each["tx_bytes"] for each in networks),
        )

    def _millis(self, container: str, stats: Mapping[str, Any]) -> int | None:
        at, used = moment(stats["read"]), int(stats["cpu_stats"]["cpu_usage"]["total_usage"])
        now = time.monotonic()
        then = self._last.get(container)
        self._last = {key: each for key, each in self._last.items() if now - each[2] < FORGET_SECONDS}
        self._last[container] = (at, used, now)
        if then is None or at <= then[0]:
            return None
        return max(0, round((used - then[1]) / (at - then[0]) / 1_000_000))


def _memory(stats: Mapping[str, Any]) -> int:
    """Without the part of the cache that the system takes back when it needs room (cgroup v2, cgroup v1)."""
    details = stats.get("stats") or {}
    cache = details.get("inactive_file", details.get("total_inactive_file", 0))
    return max(0, int(stats.get("usage", 0)) - int(cache))


def gpus_of(host: Host, container: Container) -> tuple[float | None, int | None]:
    """The mean load and the whole memory of its GPUs, asked inside it: there it sees its own ones only."""
    if not container.labels.gpus:
        return None, None
    with suppress(Unavailable, ValueError), asking(host) as client:
        made = client.exec_create(container.id, GPU_QUERY, stderr=False)
        rows = client.exec_start(made["Id"]).decode("ascii", "replace").strip().splitlines()
        found = [[float(cell) for cell in row.split(",")] for row in rows]
        if found:
            return sum(load for load, _ in found) / len(found), int(sum(used for _, used in found)) << 20
    return None, None
