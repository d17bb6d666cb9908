"""What pods use, from the cluster's metrics API and from NVIDIA's exporters. Neither need be there."""

from __future__ import annotations

import math
import re
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from endpoints.runtimes.base import Sampled
from endpoints.runtimes.kubernetes.podspec import MAIN
from endpoints.runtimes.kubernetes.room import quantity

METRICS = "metrics.k8s.io/v1beta1"
TIMEOUT = 2.0  # seconds for an exporter
LINE = re.compile(r"(DCGM_FI_DEV_GPU_UTIL|DCGM_FI_DEV_FB_USED)\{([^}]*)\}\s+([0-9.eE+-]+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')
MIB = 1 << 20


def of_pods(found: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """CPU in thousandths, rounded up, and memory in bytes of the serving container, by pod."""
    used = {}
    for one in found:
        for container in one.get("containers") or ():
            if container["name"] == MAIN:
                amounts = container.get("usage") or {}
                cpu, memory = quantity(amounts.get("cpu")), quantity(amounts.get("memory"))
                used[one["metadata"]["name"]] = (math.ceil(cpu * 1000), int(memory))
    return used


def of_gpus(addresses: Sequence[str], namespace: str) -> dict[str, tuple[float, int]]:
    """Mean load in per cent and memory in bytes of each pod's GPUs. An exporter that is silent tells nothing."""
    load: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, int] = defaultdict(int)
    for address in addresses:
        with suppress(OSError, ValueError):
            with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310  an administrator's setting
                text = answer.read().decode("utf-8", "replace")
            for name, raw, value in LINE.findall(text):
                labels = dict(LABEL.findall(raw))
                pod = labels.get("exported_pod") or labels.get("pod", "")
                if pod and (labels.get("exported_namespace") or labels.get("namespace")) == namespace:
                    if name == "DCGM_FI_DEV_GPU_UTIL":
                        load[pod].append(float(value))
                    else:
                        memory[pod] += int(float(value) * MIB)
    return {pod: (sum(load[pod]) / len(load[pod]), memory[pod]) for pod in load}


def sampled(pod: str, used: Mapping[str, tuple[int, int]], gpus: Mapping[str, tuple[float, int]]) -> Sampled:
    """One instance's numbers; None for what nobody measured."""
    cpu, memory = used.get(pod, (None, None))
    load, gpu_memory = gpus.get(pod, (None, None))
    return Sampled(cpu_millis=cpu, memory_bytes=memory, gpu_percent=load, gpu_memory_bytes=gpu_memory)
