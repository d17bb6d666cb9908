"""Several engines as one region: one that is away stops only what concerns it."""

from collections.abc import Iterator

import pytest

from endpoints.runtimes.base import PartlyUnavailable, Unavailable
from endpoints.runtimes.docker.hosts import Host
from endpoints.runtimes.docker.runtime import DockerRuntime
from tests.docker.conftest import BEHAVIOUR, IMAGE, New, workload
from tests.docker.engine import Engine
from tests.endpoints.runtimes.contract import OWNER, settled


@pytest.fixture
def second(engine: Engine) -> Iterator[Engine]:
    other = Engine()
    try:
        other.start()
        other.add_image(IMAGE, {"bin/engine": BEHAVIOUR}, changes=['CMD ["/bin/engine"]'])
        yield other
    finally:
        other.end()


@pytest.fixture
def both(new_docker: New, host: Host, second: Engine) -> DockerRuntime:
    return new_docker(hosts=[host, Host("second", second.url)])


def test_a_host_that_is_away_stops_only_what_concerns_it(both: DockerRuntime, second: Engine) -> None:
    both.apply(workload(2))
    before = settled(both, "running", 2, OWNER)
    (there,) = (one["Names"][0].strip("/") for one in second.client.containers())
    # What takes nearly all that the first one has left can only lie on the second, and the next only on the first.
    free = both.capacity().memory_bytes_free
    both.apply(workload(1, owner="endpoint-8", memory_bytes=free - (256 << 20)))
    (other,) = settled(both, "running", 1, "endpoint-8")
    on_second = other in [one["Names"][0].strip("/") for one in second.client.containers()]
    both.apply(workload(1, owner="endpoint-9", memory_bytes=512 << 20))
    settled(both, "running", 1, "endpoint-9")
    near, far = ("endpoint-9", "endpoint-8") if on_second else ("endpoint-8", "endpoint-9")

    second.kill()
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

    second.start()
    assert both.observe(OWNER) == before
