"""One instance as a container: how it is asked for, and how it is read back. Pure; the labels are all it needs.

A container that was asked to stop is renamed `<name>.leaving.<seconds since 1970>`: the engine itself remembers
that, and since when, for every worker of every console.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from endpoints.runtimes.base import MODEL_FOLDER, Command, Observed, Phase, Rejected, Workload
from endpoints.runtimes.docker.hosts import LOOPBACK
from endpoints.runtimes.folder import Fate
from endpoints.runtimes.serving import serving_config

CUSTOM = "custom"
OURS = 65532  # the user that instances run as
LEAVING = ".leaving."
INSIDE = "-in"  # how networks end that lead nowhere
PIDS = 4096
TMP_LEAST, TMP_MOST = 64 << 20, 8 << 30
LOGS = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
OOM = "OOMKilled"
# These say which model is served where, and which devices are visible: not for the user to change.
FORBIDDEN = re.compile(r"TIR_.*|NVIDIA_VISIBLE_DEVICES|MODEL_PATH")


@dataclass(frozen=True)
class Labels:
    """What a container carries. `installation` names whose it is, so that two consoles at one engine never mix."""

    installation: str
    name: str
    owner: str
    revision: int
    cpu_millis: int
    memory_bytes: int
    started_at: float
    port: int
    gpus: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, str]:
        """As the engine keeps them."""
        return {
            "tir.installation": self.installation,
            "tir.name": self.name,
            "tir.owner": self.owner,
            "tir.revision": str(self.revision),
            "tir.cpu": str(self.cpu_millis),
            "tir.memory": str(self.memory_bytes),
            "tir.started": f"{self.started_at:.3f}",
            "tir.port": str(self.port),
            "tir.gpus": ",".join(self.gpus),
        }


def labels_in(given: Mapping[str, str]) -> Labels:
    """KeyError or ValueError if they aren't ours."""
    return Labels(
        installation=given["tir.installation"],
        name=given["tir.name"],
        owner=given["tir.owner"],
        revision=int(given["tir.revision"]),
        cpu_millis=int(given["tir.cpu"]),
        memory_bytes=int(given["tir.memory"]),
        started_at=float(given["tir.started"]),
        port=int(given["tir.port"]),
        gpus=tuple(each for each in given["tir.gpus"].split(",") if each),
    )


@dataclass(frozen=True)
class Container:
    """One entry of an engine's list. `left_at` is when it was asked to stop, None if it wasn't."""

    id: str
    labels: Labels
    state: str
    address: str | None
    left_at: float | None

    @property
    def started(self) -> datetime:
        """When it was asked for."""
        return datetime.fromtimestamp(self.labels.started_at, UTC)

    @property
    def ended(self) -> bool:
        """Whether it ran and runs no more."""
        return self.state in {"exited", "dead"}


def read(entry: Mapping[str, Any], address: str, network: str) -> Container | None:
    """A container from an engine's list; None if it isn't ours, or is just being removed."""
    try:
        labels = labels_in(entry["Labels"] or {})
    except (KeyError, ValueError):
        return None
    if entry["State"] == "removing":
        return None
    name = next(iter(entry["Names"] or ()), "")
    left = name.rpartition(LEAVING)[2] if LEAVING in name else ""
    return Container(
        id=entry["Id"],
        labels=labels,
        state=entry["State"],
        address=_reached(entry, labels.port, address, network),
        left_at=float(left) if left else None,
    )


def _reached(entry: Mapping[str, Any], port: int, address: str, network: str) -> str | None:
    for name, place in joined(entry).items():
        if name == network or name.endswith(INSIDE):
            return f"http://{place['IPAddress']}:{port}" if place.get("IPAddress") else None
    if network:
        return None
    published = (each.get("PublicPort") for each in entry.get("Ports") or () if each.get("PrivatePort") == port)
    outside = next((each for each in published if each), None)
    return f"http://{f'[{address}]' if ':' in address else address}:{outside}" if outside else None


def joined(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The networks that a container of an engine's list is in, by name."""
    return (entry.get("NetworkSettings") or {}).get("Networks") or {}


def observed(one: Container, fate: Fate | None, last_words: str) -> Observed:
    """What the controller sees of it."""
    labels = one.labels
    phase = Phase.EXITED if fate else Phase.RUNNING if one.address else Phase.STARTING
    killed = fate is not None and fate.oom
    return Observed(
        name=labels.name,
        owner=labels.owner,
        revision=labels.revision,
        phase=phase,
        address=one.address if phase == Phase.RUNNING else None,
        exit_code=fate.exit_code if fate else None,
        message=fate.message(last_words) if fate else "",
        started_at=one.started,
        finished_at=max(one.started, _time(fate.finished_at)) if fate else None,
        asked=fate.asked if fate else False,
        reason=OOM if killed else "",
    )


def fate_of(inspected: Mapping[str, Any], *, asked: bool) -> tuple[Fate, str] | None:
    """How a container ended, with the engine's own words; None while it lives, or has yet to be started."""
    state = inspected["State"]
    if state["Status"] == "created":
        if not state["Error"]:
            return None
        return Fate(state["ExitCode"] or 128, asked, moment(inspected["Created"])), state["Error"]
    if state["Status"] not in {"exited", "dead"}:
        return None
    code = state["ExitCode"]
    return Fate(code, asked, moment(state["FinishedAt"]), oom=bool(state["OOMKilled"]) and code != 0), state[
        "Error"
    ]


def moment(text: str) -> float:
    """Seconds since 1970 of the engine's time, which has nanoseconds."""
    whole, _, rest = text.rstrip("Z").partition(".")
    fraction = re.match(r"\d*", rest)
    seconds = datetime.fromisoformat(f"{whole[:19]}+00:00").timestamp()
    return seconds + float(f"0.{fraction[0]}" if fraction and fraction[0] else 0)


def check(workload: Workload) -> None:
    """Rejected for what can never run here."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?", workload.owner):
        raise Rejected(f"{workload.owner!r} can't own an instance: use a-z, 0-9 and -")
    if workload.replicas < 0:
        raise Rejected("the number of instances can't be below 0")
    if workload.replicas and workload.command is None:
        raise Rejected("there is nothing to run: no command")
    if workload.command and workload.command.image is None:
        raise Rejected("there is nothing to run: no image")
    names = [*workload.env, *workload.secrets]
    if wrong := sorted({name for name in names if FORBIDDEN.fullmatch(name) or not name.isidentifier()}):
        raise Rejected(f"these variables can't be set for a container: {', '.join(wrong)}")
    if any("\0" in value for value in (*workload.env.values(), *workload.secrets.values())):
        raise Rejected("the value of a variable can't contain a zero byte")


@dataclass(frozen=True)
class Place:
    """What a host gives to one container."""

    image: str
    user: str
    threads: int
    cpu_millis: int
    publish: str  # the address to publish at, "" to publish nothing
    network: str
    mount: tuple[str, str] | None  # the host's folder, and the model's path in the container


def config(workload: Workload, command: Command, labels: Labels, place: Place) -> dict[str, Any]:
    """The body of the engine's `create`."""
    port = f"{labels.port}/tcp"
    wanted = {
        "Image": place.image,
        "Env": _environment(workload, command, labels, place),
        "User": place.user,
        "Labels": labels.to_dict(),
        "ExposedPorts": {port: {}},
        "Healthcheck": {
            "Test": ["NONE"]
        },  # the controller probes: an image's own check would cost a process each time
        "HostConfig": _limits(workload, labels, place) | walls(place, port),
        "NetworkingConfig": {"EndpointsConfig": {place.network: {}}},
    }
    custom = command.image.command if command.image else ()
    return wanted | ({"Cmd": list(custom)} if custom else {})


def _limits(workload: Workload, labels: Labels, place: Place) -> dict[str, Any]:
    # Memory alone, without as much swap again; what lies in /tmp and /dev/shm counts as memory.
    room = min(max(workload.memory_bytes // 4, TMP_LEAST), TMP_MOST)
    devices = [{"DeviceIDs": list(labels.gpus), "Capabilities": [["gpu", "compute", "utility"]]}]
    return {
        "NanoCpus": place.cpu_millis * 1_000_000,
        "Memory": workload.memory_bytes,
        "MemorySwap": workload.memory_bytes,
        "PidsLimit": PIDS,
        "ShmSize": room,
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,size={room},mode=1777"},  # noqa: S108
        "DeviceRequests": devices if labels.gpus else [],
    }


def walls(place: Place, port: str) -> dict[str, Any]:
    """What the engine holds a container to, whatever its image."""
    mounts: Sequence[dict[str, Any]] = ()
    if place.mount:
        mounts = [{"Type": "bind", "Source": place.mount[0], "Target": MODEL_FOLDER, "ReadOnly": True}]
    return {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Init": True,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": LOGS,
        "Mounts": list(mounts),
        "NetworkMode": place.network,
        "PortBindings": {port: [{"HostIp": place.publish, "HostPort": ""}]} if place.publish else {},
        # Some engines ask for names on behalf of who has no network: what asks itself gets no answer.
        "Dns": [LOOPBACK] if place.network.endswith(INSIDE) else [],
    }


def _environment(workload: Workload, command: Command, labels: Labels, place: Place) -> list[str]:
    """The variables. Secrets are among them: the one way into any image that needs nothing of it.

    Whoever may ask the engine may therefore read them there, as root of the host may read them anywhere. A file
    that is put into a container would lie on the host's disk, and one in its memory is gone before it starts.
    """
    ours = {"HOME": "/tmp", "PORT": str(labels.port)}  # noqa: S108  the container's own, in memory
    decided = {"TIR_SECRETS": ",".join(workload.secrets)} if workload.secrets else {}
    if not labels.gpus:
        decided["NVIDIA_VISIBLE_DEVICES"] = "void"  # many images say "all", which a host may grant
    if place.mount:
        decided["MODEL_PATH"] = place.mount[1]
    if command.engine != CUSTOM:
        serving = serving_config(
            command,
            model=place.mount[1] if place.mount else "",
            host="0.0.0.0",  # noqa: S104  the container's own network
            port=labels.port,
            threads=place.threads,
            gpus=len(labels.gpus),
            cache="/tmp",  # noqa: S108
        )
        decided["TIR_CONFIG"] = json.dumps(serving)
    every = {**ours, **workload.env, **workload.secrets, **decided}
    return [f"{name}={value}" for name, value in every.items()]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)
