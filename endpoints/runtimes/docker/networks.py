"""The network that instances join on an engine: one of this console's own, in which none reaches another.

One for all instances: an engine has subnets for some thirty networks, and one for each endpoint would wall off no
better, because either wall is a rule of the engine's firewall. There are two kinds: `out` leads anywhere; `in`
leads nowhere, and what joins it is reached at its address there, by this machine only. Each bridge is called
`tir-…`, so that a rule of the host's own firewall means all of them (deploy/docker-walls.sh). Networks of ours by
other names are of older consoles, and go once nothing is in them.
"""

from __future__ import annotations

import hashlib

from docker.errors import APIError

from endpoints.runtimes.base import Unavailable
from endpoints.runtimes.docker.containers import INSIDE, joined
from endpoints.runtimes.docker.hosts import Host, asking, words

OPTION = "com.docker.network.bridge"
NO_SUBNET = ("non-overlapping", "fully subnetted")


def name_for(host: Host, installation: str, *, sealed: bool) -> str:
    """The network that new instances join."""
    return host.network or f"tir-{installation}{INSIDE if sealed else '-out'}"


def join(host: Host, installation: str, *, sealed: bool) -> str:
    """Its name; made if it isn't there. With the lock of placement held."""
    name = name_for(host, installation, sealed=sealed)
    if host.network:
        return name
    with asking(host) as client:
        for there in client.networks(filters={"name": f"^{name}$"}):
            if there["Internal"] != sealed or (there["Options"] or {}).get(f"{OPTION}.enable_icc") != "false":
                raise Unavailable(f"The network {name} on {host.name} was made by somebody else: remove it there")
            return name
        options = _options(name, str(client.info()["ID"]))
        try:
            client.create_network(
                name, driver="bridge", internal=sealed, options=options, labels=_labels(installation)
            )
        except APIError as error:
            if any(sign in words(error) for sign in NO_SUBNET):
                raise Unavailable(_no_subnet(host)) from error
            raise
    return name


def published_at(host: Host, network: str) -> str:
    """The address at which ports of this network's instances are published; "" where none are."""
    return "" if host.network or network.endswith(INSIDE) else host.address


def leave(host: Host, installation: str) -> set[str]:
    """Remove our networks that no container is in; the names of those in use. With the lock of placement held."""
    with asking(host) as client:
        ours = {"label": [f"{key}={value}" for key, value in _labels(installation).items()]}
        used = {name for one in client.containers(all=True, filters=ours) for name in joined(one)}
        for each in client.networks(filters=ours):
            if each["Name"] not in used:
                client.remove_network(each["Id"])
    return used


def _options(name: str, engine: str) -> dict[str, str]:
    """A bridge's name has 15 letters at most, and two engines of one machine can't have one bridge."""
    bridge = f"tir-{hashlib.sha256(f'{engine} {name}'.encode()).hexdigest()[:10]}"
    return {f"{OPTION}.enable_icc": "false", f"{OPTION}.name": bridge}


def _labels(installation: str) -> dict[str, str]:
    return {"tir.installation": installation}


def _no_subnet(host: Host) -> str:
    return (
        f"Docker on {host.name} has no subnet left for the network of instances: remove networks there that "
        "nobody uses (docker network prune), or give it more in default-address-pools of its daemon.json"
    )
