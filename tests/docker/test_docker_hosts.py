"""Several engines as one region: one that is away stops only what concerns it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from endpoints.runtimes.base import Observed, PartlyUnavailable, Unavailable
from endpoints.runtimes.docker.hosts import Host, hosts_in
from endpoints.runtimes.docker.runtime import DockerRuntime
from tests.docker.certificates import Authority
from tests.docker.conftest import BEHAVIOUR, IMAGE, New, workload
from tests.docker.engine import Engine
from tests.endpoints.runtimes.contract import OWNER, settled
from tests.wait import until
from tir_console.up.ports import free_port


@dataclass(frozen=True)
class Remote:
    """An engine that listens on the network, to those only who show its authority's papers."""

    engine: Engine
    settings: dict[str, Any]

    def names(self) -> list[str]:
        return [one["Names"][0].strip("/") for one in self.engine.client.containers()]


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Remote]:
    authority = Authority(tmp_path, "ours")
    cert, key = authority.issue("engine")
    port = free_port()
    listen = ("--tlsverify", "--tlscacert", authority.ca, "--tlscert", cert, "--tlskey", key)
    other = Engine(options=(*listen, "--host", f"tcp://127.0.0.1:{port}"))
    cert, key = authority.issue("console")
    settings = {"name": "second", "url": f"tcp://127.0.0.1:{port}", "models": "/srv/models"}
    try:
        other.start()
        other.add_image(IMAGE, {"bin/engine": BEHAVIOUR}, changes=['CMD ["/bin/engine"]'])
        yield Remote(other, settings | {"ca": authority.ca, "cert": cert, "key": key})
    finally:
        other.end()


@pytest.fixture
def both(new_docker: New, host: Host, second: Remote) -> DockerRuntime:
    return new_docker(hosts=[host, *hosts_in([second.settings])])


def test_who_shows_no_papers_or_other_ones_gets_no_answer(new_docker: New, second: Remote, tmp_path: Path) -> None:
    assert new_docker(hosts=hosts_in([second.settings])).observe() == {}
    foreign = Authority(tmp_path, "foreign")
    cert, key = foreign.issue("console")
    plain = {name: second.settings[name] for name in ("name", "url", "models")}
    for wrong in (plain, second.settings | {"cert": cert, "key": key}, second.settings | {"ca": foreign.ca}):
        with pytest.raises(Unavailable, match="second"):
            new_docker(hosts=hosts_in([wrong])).observe()


def test_a_host_that_is_away_stops_only_what_concerns_it(both: DockerRuntime, second: Remote) -> None:
    both.apply(workload(2))
    before = settled(both, "running", 2, OWNER)
    (there,) = second.names()
    # What takes nearly all that the first one has left can only lie on the second, and the next only on the first.
    free = both.capacity().memory_bytes_free
    both.apply(workload(1, owner="endpoint-8", memory_bytes=free - (256 << 20)))
    (other,) = settled(both, "running", 1, "endpoint-8")
    on_second = other in second.names()
    both.apply(workload(1, owner="endpoint-9", memory_bytes=512 << 20))
    settled(both, "running", 1, "endpoint-9")
    near, far = ("endpoint-9", "endpoint-8") if on_second else ("endpoint-8", "endpoint-9")

    second.engine.kill()
    with pytest.raises(PartlyUnavailable, match="second"):
        both.observe()
    for ask in (lambda: both.observe(OWNER), lambda: both.observe(far), lambda: both.apply(workload(0))):
        with pytest.raises(Unavailable):
            ask()
    assert len(both.observe(near)) == 1
    both.apply(workload(0, owner=near))
    settled(both, "exited", 1, near)
    assert "second can't be reached" in both.capacity().reason
    assert set(before) - {there} <= set(both.usage())

    second.engine.start()
    until(lambda: _again(both) == before, what="the second host to be asked again")


def _again(both: DockerRuntime) -> dict[str, Observed] | None:
    try:
        return both.observe(OWNER)
    except Unavailable:
        return None
