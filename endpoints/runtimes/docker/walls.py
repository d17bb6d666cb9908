"""Whether the walls around instances stand, tried from inside: no engine says whether it runs a firewall.

Two containers of a pre-built image join the network of instances, dressed like instances. One calls the other, and
what else no instance has to reach. Only silence is a wall: a refusal is an answer that came through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from docker import APIClient
from docker.errors import APIError

from endpoints.runtimes.base import SERVED_PORT, Unavailable
from endpoints.runtimes.docker import trial
from endpoints.runtimes.docker.containers import INSIDE, OURS, Place, walls
from endpoints.runtimes.docker.hosts import LOOPBACK, Host, asking
from endpoints.runtimes.docker.images import OWN
from endpoints.runtimes.docker.networks import published_at
from endpoints.runtimes.docker.record import Record

EVERY = 3600.0  # seconds after which it is tried again
LABEL = "tir.trial"
LASTS = 60  # seconds at most
STAND = f"import signal; signal.alarm({LASTS}); signal.pause()"
CLOSED_PORT = 1  # nobody listens there: a host that lets in what comes refuses
METADATA = "yes:169.254.169.254:80"
ITSELF = f"any:{LOOPBACK}:{CLOSED_PORT}"  # answers in any case, or the trial tells nothing


@dataclass(frozen=True)
class Reached:
    """What a container reached: its neighbour, its neighbour's published port, the host, a cloud's metadata."""

    neighbour: bool
    published: bool
    host: bool
    metadata: bool

    def words(self, host: Host, network: str) -> str:
        """For who looks after the host. A sealed network is walled off by the same firewall of the engine."""
        sealed = network.endswith(INSIDE)
        found = {
            "other instances (its engine or kernel filters nothing between containers)": self.neighbour,
            "so, it must be feared, every network although the region is sealed": self.neighbour and sealed,
            f"the ports that others publish at {host.address}": self.published,
            "what listens on all addresses of the host": self.host,
            "the cloud's metadata service": self.metadata,
        }
        if came := [name for name, reached in found.items() if reached]:
            return f"an instance can reach {'; '.join(came)}"
        return "an instance reaches neither another one nor the host"


class Tried(Record):
    """What came of the last trial in each network of each engine."""

    def note(self, host: Host, network: str, said: str, *, at: float, due: float) -> None:
        with self.open() as known:
            known[f"{host.url} {network}"] = {"said": said, "at": at, "due": due}

    def due(self, host: Host, network: str, at: float) -> bool:
        with self.open() as known:
            return bool(at >= known.get(f"{host.url} {network}", {}).get("due", 0.0))

    def words(self, host: Host, network: str) -> str:
        """What is known, and since when."""
        with self.open() as known:
            return f"{host.name}: {_told(known.get(f'{host.url} {network}'))}"


def _told(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "whether walls stand around instances has not been tried yet"
    return f"{entry['said']} (tried at {datetime.fromtimestamp(entry['at'], UTC):%Y-%m-%d %H:%M} UTC)"


def look(host: Host, installation: str, network: str, ours: Collection[str], tried: Tried, *, at: float) -> None:
    """Try it if that is due, and write down what came of it. One at a time."""
    if not tried.due(host, network, at):
        return
    try:
        _clear(host, installation)
        image = _image(host, ours)
        if image is None:
            said = "no pre-built image is there to try the walls with"
        else:
            said = attempt(host, installation, network, image).words(host, network)
        due = at + EVERY
    except Unavailable as problem:
        said, due = f"the walls could not be tried: {problem}", at
    tried.note(host, network, said, at=at, due=due)


def _image(host: Host, ours: Collection[str]) -> str | None:
    """The id of a pre-built image there: what a stranger's image tells of a trial proves nothing."""
    with asking(host) as client:
        for each in client.images():
            if any(name.startswith(OWN) or name in ours for name in each["RepoTags"] or ()):
                return str(each["Id"])
    return None


def _clear(host: Host, installation: str) -> None:
    """Remove what trials that were cut off left."""
    with asking(host) as client:
        label = {"label": [f"tir.installation={installation}", LABEL]}
        for each in client.containers(all=True, filters=label):
            client.remove_container(each["Id"], force=True, v=True)


def attempt(host: Host, installation: str, network: str, image: str) -> Reached:
    """Try it. Unavailable if nothing can be said."""
    place = Place(image, f"{OURS}:{OURS}", 1, 100, published_at(host, network), network, None)
    with asking(host) as client, _running(client, place, installation, [STAND]) as other:
        settings = client.inspect_container(other)["NetworkSettings"]
        published = next(iter(settings["Ports"].get(f"{SERVED_PORT}/tcp") or ()), None)
        addresses = client.inspect_network(network)["IPAM"]["Config"] or [{}]
        gateway = str(addresses[0].get("Gateway") or "").partition("/")[0]
        calls = [
            ITSELF,
            f"any:{settings['Networks'][network]['IPAddress']}:{SERVED_PORT}",
            f"any:{host.address}:{published['HostPort']}" if published and host.address != LOOPBACK else "",
            f"any:{gateway}:{CLOSED_PORT}" if gateway else "",
            METADATA,
        ]
        code = Path(trial.__file__).read_text("utf-8")
        with _running(client, place, installation, [code, *calls]) as caller:
            status = int(client.wait(caller, timeout=LASTS)["StatusCode"]) - trial.MARK
        stood = client.inspect_container(other)["State"]["Running"]
    if not (stood and status & 1 and 0 < status < 1 << len(calls)):
        raise Unavailable(f"the trial in a container of {image} on {host.name} broke off")
    return Reached(*(bool(status >> place & 1) for place in range(1, len(calls))))


@contextmanager
def _running(client: APIClient, place: Place, installation: str, arguments: Sequence[str]) -> Iterator[str]:
    """A container that runs this Python until the end of the block."""
    port = f"{SERVED_PORT}/tcp"
    body = {
        "Image": place.image,
        "Entrypoint": ["python3", "-c"],
        "Cmd": list(arguments),
        "User": place.user,
        "Env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "Labels": {"tir.installation": installation, LABEL: ""},
        "ExposedPorts": {port: {}},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {"Memory": 128 << 20, "PidsLimit": 64} | walls(place, port),
        "NetworkingConfig": {"EndpointsConfig": {place.network: {}}},
    }
    made = client.create_container_from_config(body)["Id"]
    try:
        client.start(made)
        yield made
    finally:
        with suppress(APIError, requests.RequestException):  # what is left is cleared before the next trial
            client.remove_container(made, force=True, v=True)
