"""What an instance reaches, tried from inside, on an engine with a firewall in a network of its own.

One other machine is there, the outside and a cloud's metadata. The engine's own has a database on its loopback.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError

from endpoints.runtimes.base import Command, Image, Unavailable
from endpoints.runtimes.docker.hosts import LOOPBACK, Host
from endpoints.runtimes.docker.runtime import DockerRuntime
from endpoints.runtimes.docker.walls import attempt
from tests.docker.conftest import BEHAVIOUR, IMAGE, New, workload
from tests.docker.engine import BUSYBOX, Engine, cannot, wanted
from tests.docker.small_python import small_python
from tests.endpoints.runtimes.contract import said, settled
from tests.wait import until

HERE, OUTSIDE, METADATA = "203.0.113.1", "203.0.113.2", "169.254.169.254"
DATABASE = 5432
PREBUILT = "tir-serving-small:1"
WALLS = Path(__file__).resolve().parents[2] / "deploy" / "docker-walls.sh"
_owners = (f"endpoint-{number}" for number in itertools.count(100))


@dataclass
class Machine:
    """An engine's machine, and what can be asked on it."""

    engine: Engine
    outside: subprocess.Popen[bytes]

    def do(self, *argv: str, outside: bool = False) -> str:
        process = self.outside if outside else self.engine.process
        assert process
        entered = ["nsenter", "--target", str(process.pid), "--net", "--", *argv]
        done = subprocess.run(entered, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout

    def calls(self, address: str) -> bool:
        """Whether this machine gets through to an address, of an instance that has just been started."""
        host, _, port = address.removeprefix("http://").rpartition(":")
        until(lambda: self.do("sh", "-c", _call("came", host, port, 5)), what=f"an answer from {address}")
        return True


def _call(name: str, host: str, port: str, seconds: int) -> str:
    """In any shell: says the name if a connection comes about."""
    return f"{{ echo x | busybox nc -w {seconds} {host} {port} >/dev/null 2>&1 && echo {name}; }} || true"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    wanted()
    if missing := [name for name in ("ip", "iptables", "nsenter", "unshare") if shutil.which(name) is None]:
        cannot(f"the walls around containers are tried in a network of their own; there is no {missing} here")
    # Eight subnets, so that they run out.
    engine = Engine(alone=True, options=("--default-address-pool", "base=10.99.0.0/24,size=27"))
    outside = subprocess.Popen(["unshare", "--net", "--", str(BUSYBOX), "httpd", "-f", "-p", "80"])
    try:
        engine.start()
        engine.add_image(IMAGE, {"bin/engine": BEHAVIOUR}, changes=['CMD ["/bin/engine"]'])
        small_python(engine, PREBUILT)
        yield _wired(Machine(engine, outside))
    finally:
        outside.kill()
        outside.wait()
        engine.end()


def _wired(machine: Machine) -> Machine:
    assert machine.engine.process
    peer = str(machine.engine.process.pid)
    machine.do("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", peer, outside=True)
    for address in (f"{OUTSIDE}/24", f"{METADATA}/32"):
        machine.do("ip", "address", "add", address, "dev", "up0", outside=True)
    machine.do("ip", "address", "add", f"{HERE}/24", "dev", "up0")
    for outside in (True, False):
        machine.do("ip", "link", "set", "up0", "up", outside=outside)
    machine.do("ip", "route", "add", "default", "via", OUTSIDE)
    machine.do(str(BUSYBOX), "httpd", "-p", f"127.0.0.1:{DATABASE}", "-h", str(machine.engine.folder))
    machine.calls(f"127.0.0.1:{DATABASE}")
    machine.calls(f"{OUTSIDE}:80")
    return machine


@pytest.fixture
def new(machine: Machine, tmp_path: Path) -> Iterator[Callable[..., DockerRuntime]]:
    made: list[DockerRuntime] = []

    def make(installation: str = "walls", *, address: str = LOOPBACK, sealed: bool = False) -> DockerRuntime:
        host = Host("walled", machine.engine.url, address=address)
        made.append(DockerRuntime([host], tmp_path, installation, 64.0, sealed=sealed))
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()


def started(runtime: DockerRuntime, **changes: Any) -> tuple[str, str]:
    """An instance of an endpoint of its own: its name and address."""
    owner = next(_owners)
    runtime.apply(workload(1, owner=owner, **changes))
    (one,) = settled(runtime, "running", 1, owner).values()
    assert one.address
    return one.name, one.address


def caller(runtime: DockerRuntime, addresses: Mapping[str, str], patient: str = "") -> Callable[[], set[str]]:
    """A new instance that calls these addresses; ask it which it got through to. It has patience with one."""
    placed = {name: address.split(":") for name, address in addresses.items()}
    calls = [_call(name, host, port, 20 if name == patient else 1) for name, (host, port) in placed.items()]
    look = "".join(f"{{ {call}; }} & " for call in calls) + "wait"
    name, _ = started(runtime, behave="look", env={"LOOK": look})
    return lambda: {line.text for line in said(runtime, name, "end of look")} & set(addresses)


def inside(machine: Machine, name: str) -> tuple[str, str]:
    """An instance's address in its network, and its host's."""
    (network,) = machine.engine.client.inspect_container(name)["NetworkSettings"]["Networks"].values()
    return network["IPAddress"], network["Gateway"]


def test_an_instance_reaches_the_outside_but_no_neighbour_and_no_loopback(
    machine: Machine, new: Callable[..., DockerRuntime]
) -> None:
    """Of whichever console, a sealed region's or one's own. A sealed one reaches nothing at all."""
    runtime, foreign, sealed = new(), new("foreign"), new(sealed=True)
    name, address = started(runtime)
    other, other_address = started(foreign)
    shut, shut_address = started(sealed)
    for each in (address, other_address, shut_address):
        assert machine.calls(each)
    neighbour, gateway = inside(machine, name)
    targets = {
        "outside": f"{OUTSIDE}:80",
        "neighbour": f"{neighbour}:8000",
        "published": f"{gateway}:{address.rpartition(':')[2]}",
        "foreign": f"{inside(machine, other)[0]}:8000",
        "sealed": f"{inside(machine, shut)[0]}:8000",
        "database": f"{gateway}:{DATABASE}",
        "own-loopback": f"127.0.0.1:{DATABASE}",
    }
    open_one, sealed_one = caller(runtime, targets, "outside"), caller(sealed, targets)
    assert open_one() == {"outside"}
    assert sealed_one() == set()


def test_a_network_of_an_older_console_goes_with_the_last_instance_in_it(
    machine: Machine, new: Callable[..., DockerRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = new("older")
    machine.engine.client.create_network("tir-older", labels={"tir.installation": "older"})
    with monkeypatch.context() as older:
        older.setattr("endpoints.runtimes.docker.networks.join", lambda *_, **__: "tir-older")
        _, address = started(runtime)
    runtime.tidy([], at=0)
    assert machine.calls(address)
    (one,) = runtime.observe().values()
    machine.engine.client.kill(one.name)
    settled(runtime, "exited", 1)
    runtime.forget(one.name)
    runtime.tidy([], at=0)
    assert not machine.engine.client.networks(filters={"label": "tir.installation=older"})


def test_a_trial_says_what_is_open_and_the_hosts_own_firewall_shuts_it(
    machine: Machine, new: Callable[..., DockerRuntime]
) -> None:
    runtime = new("open", address=HERE)
    _, address = started(runtime)
    assert "has not been tried yet" in runtime.capacity().walls
    bridge = _without_icc_rule(machine, "tir-open-out")
    runtime.tidy([], at=1e9)
    words = runtime.capacity().walls
    assert words.startswith("walled: an instance can reach other instances (its engine or kernel")
    assert f"the ports that others publish at {HERE}; what listens on all addresses of the host;" in words
    assert "the cloud's metadata service (tried at 2001-09-09 01:46 UTC)" in words
    assert bridge.startswith("tir-")

    machine.do(str(WALLS), f"{OUTSIDE}/32")
    machine.do(str(WALLS))
    runtime.tidy([], at=1e9 + 60)
    assert runtime.capacity().walls == words
    runtime.tidy([], at=1e9 + 4000)
    assert "an instance reaches neither another one nor the host (tried" in runtime.capacity().walls
    targets = {"outside": f"{OUTSIDE}:80", "neighbour": address.removeprefix("http://")}
    assert caller(runtime, targets, "outside")() == {"outside"}
    assert machine.calls(address)

    with pytest.raises(Unavailable, match="broke off"):
        attempt(runtime.hosts[0], "open", "tir-open-out", IMAGE)
    assert not machine.engine.client.containers(all=True, filters={"label": "tir.trial"})


def _without_icc_rule(machine: Machine, network: str) -> str:
    """As if the engine had no firewall between containers; the bridge's name."""
    bridge = str(machine.engine.client.inspect_network(network)["Options"]["com.docker.network.bridge.name"])
    machine.do("iptables", "--wait", "-D", "FORWARD", "-i", bridge, "-o", bridge, "-j", "DROP")
    return bridge


def test_subnets_that_run_out_are_said_in_words(machine: Machine, new: Callable[..., DockerRuntime]) -> None:
    with suppress(APIError):
        for number in range(8):
            machine.engine.client.create_network(f"taken-{number}")
    with pytest.raises(Unavailable, match="has no subnet left for the network of instances: remove networks"):
        new("late").prepare(Command(engine="custom", model="", alias="demo", image=Image(IMAGE)), print)


def test_a_network_that_somebody_else_made_is_not_joined(engine: Engine, new_docker: New) -> None:
    runtime = new_docker()
    engine.client.create_network(f"tir-{runtime.installation}-out", labels={"tir.installation": "other"})
    with pytest.raises(Unavailable, match="was made by somebody else"):
        runtime.apply(workload(1))
    assert runtime.observe() == {}
