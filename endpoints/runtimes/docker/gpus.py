"""Which GPUs a host has to hand out, and where one more instance fits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoints.runtimes.base import Unavailable, Workload
from endpoints.runtimes.docker.containers import Container
from endpoints.runtimes.docker.hosts import Host

DRIVER = Path("/proc/driver/nvidia/gpus")
GIB = 1 << 30
AS_IMAGES_SAY = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}  # an engine names it as its kernel does


def devices(host: Host, info: Mapping[str, Any], driver: Path = DRIVER) -> tuple[str, ...]:
    """The ids of a host's GPUs: as the region says, as the engine says, or as this machine's driver says."""
    if host.gpus is not None:
        return host.gpus
    generic = [each.get("NamedResourceSpec") or {} for each in info.get("GenericResources") or ()]
    if named := tuple(each["Value"] for each in generic if "gpu" in each.get("Kind", "").lower()):
        return named
    found = info.get("DiscoveredDevices") or ()
    ids = [each["ID"].partition("=")[2] for each in found if each["ID"].startswith("nvidia.com/gpu=")]
    if ids:
        return tuple(each for each in ids if each.isdigit()) or tuple(each for each in ids if each != "all")
    return tuple(sorted(_of_driver(driver))) if host.local else ()


def _of_driver(driver: Path) -> Iterable[str]:
    for file in driver.glob("*/information"):
        if found := re.search(r"GPU UUID:\s*(GPU-\S+)", file.read_text("ascii", "replace")):
            yield found[1]


@dataclass(frozen=True)
class Room:
    """What a host has, and what is not promised to a container of any console."""

    host: Host
    cores: int
    cpu_millis: int
    cpu_free: int
    memory_bytes: int
    memory_free: int
    gpus: int
    gpus_free: tuple[str, ...]
    architecture: str = ""  # as images name it

    def holds(self, workload: Workload) -> bool:
        """Whether one more instance fits."""
        return (
            self.cpu_free >= workload.cpu_millis
            and self.memory_free >= workload.memory_bytes
            and len(self.gpus_free) >= workload.gpus
        )

    def explain(self) -> str:
        """For people."""
        gpus = f" and {len(self.gpus_free)} GPUs" if self.gpus else ""
        return (
            f"{self.host.name} has {self.cpu_free / 1000:g} vCPU and {self.memory_free / GIB:.1f} GiB{gpus} free"
        )


def room_of(host: Host, info: Mapping[str, Any], there: Sequence[Container], overcommit: float) -> Room:
    """The host less what its live containers were promised."""
    promised = [one.labels for one in there if not one.ended]
    cpu, memory = int(info["NCPU"] * 1000 * overcommit), int(info["MemTotal"])
    gpus, made_of = devices(host, info), str(info.get("Architecture") or "")
    taken = {each for labels in promised for each in labels.gpus}
    return Room(
        host=host,
        cores=int(info["NCPU"]),
        cpu_millis=cpu,
        cpu_free=max(0, cpu - sum(labels.cpu_millis for labels in promised)),
        memory_bytes=memory,
        memory_free=max(0, memory - sum(labels.memory_bytes for labels in promised)),
        gpus=len(gpus),
        gpus_free=tuple(each for each in gpus if each not in taken),
        architecture=AS_IMAGES_SAY.get(made_of, made_of),
    )


def choose(rooms: Sequence[Room], workload: Workload) -> Room:
    """The host with the most left, one without GPUs for who needs none. Unavailable if none has room."""
    fitting = [room for room in rooms if room.holds(workload)]
    if not fitting:
        needs = f"{workload.cpu_millis / 1000:g} vCPU and {workload.memory_bytes / GIB:g} GiB"
        needs += f" and {workload.gpus} GPUs" if workload.gpus else ""
        has = "; ".join(room.explain() for room in rooms)
        raise Unavailable(f"No host has room for an instance, which needs {needs}: {has}")
    if not workload.gpus:
        fitting = [room for room in fitting if not room.gpus] or fitting
    return max(fitting, key=lambda room: (room.memory_free, room.cpu_free))
