"""The contract, on a cluster that KUBECONFIG and TIR_TEST_NAMESPACE name: `make test-cluster`, never in CI."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from endpoints.runtimes.base import Runtime
from tests.endpoints.runtimes.contract import Contract, Place, said, settled, the_one
from tests.real_cluster.door import behind_a_door
from tests.real_cluster.place import ENGINE, RealCluster
from tests.wait import until

KUBECONFIG, NAMESPACE = os.environ.get("KUBECONFIG", ""), os.environ.get("TIR_TEST_NAMESPACE", "")
IMAGE = os.environ.get("TIR_TEST_IMAGE", "python:3.12-slim")
TELL = """import sys
from os import environ
print("told:", *sys.argv[1:], environ["PRICE"], environ["TIR_SECRETS"], len(environ["API_KEY"]), flush=True)
"""
PULL = 600  # seconds that a node may take for the image
MOST_NODES = 8  # on which it is pulled beforehand

pytestmark = pytest.mark.skipif(
    not (KUBECONFIG and NAMESPACE),
    reason="no cluster is named: KUBECONFIG is one file, TIR_TEST_NAMESPACE a namespace (docs/kubernetes.md)",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """Its nodes have the image."""
    door, kubeconfig = behind_a_door(Path(KUBECONFIG), tmp_path_factory.mktemp("access"))
    cluster = RealCluster(kubeconfig, door, NAMESPACE, IMAGE)
    cluster.clear()
    nodes = min(MOST_NODES, max(1, len(cluster.runtime.capacity().pieces)))
    cluster.runtime.apply(cluster.workload(nodes))

    def pulled() -> bool:
        return all(one.address for one in cluster.runtime.observe().values())

    until(pulled, seconds=PULL, every=1.0, what=lambda: f"{IMAGE} on the nodes; {cluster.runtime.observe()}")
    yield cluster
    cluster.clear()
    door.shutdown()
    door.server_close()


class TestRealCluster(Contract):
    @pytest.fixture
    def place(self, cluster: RealCluster) -> Place:
        cluster.clear()
        return cluster

    def test_a_slow_start_is_starting_until_it_has_an_address(self, place: Place, runtime: Runtime) -> None:
        assert isinstance(place, RealCluster)
        place.may_label_nodes()
        super().test_a_slow_start_is_starting_until_it_has_an_address(place, runtime)
        place.may_label_nodes()

    def test_one_that_wants_more_memory_than_it_may_have_ends_and_says_so(
        self, place: Place, runtime: Runtime
    ) -> None:
        """By the word that endpoints.learning knows."""
        super().test_one_that_wants_more_memory_than_it_may_have_ends_and_says_so(place, runtime)
        assert "OOMKilled" in {one.reason for one in runtime.observe().values()}

    def test_a_vanished_instance_is_simply_gone_and_another_takes_its_place(
        self, place: Place, runtime: Runtime
    ) -> None:
        """A real cluster doesn't wait to be asked for another."""
        runtime.apply(place.workload(2))
        victim, keeper = settled(runtime, "running", 2)
        place.vanish(victim)
        until(lambda: victim not in runtime.observe(), what=f"{victim} to be gone")
        assert runtime.logs(victim, 0, 10) == []
        after = settled(runtime, "running", 2)
        runtime.apply(place.workload(2))
        assert keeper in after
        assert runtime.observe() == after

    def test_what_is_promised_is_not_offered_again(self, place: Place, runtime: Runtime) -> None:
        if not (found := runtime.capacity()).known:
            pytest.skip(found.reason)
        super().test_what_is_promised_is_not_offered_again(place, runtime)

    def test_variables_and_words_of_a_command_arrive_as_they_were_written(
        self, cluster: RealCluster, place: Place, runtime: Runtime
    ) -> None:
        """A kubelet would make $ of $$, and of $(API_KEY) the secret."""
        image = replace(cluster.image, command=("python3", "-c", f"{TELL}{ENGINE}", "--key=$(API_KEY)", "$$"))
        command = replace(cluster.command, image=image)
        env, secrets = {"PRICE": "5$$, $(PORT)"}, {"API_KEY": "k$(PORT)$$"}
        runtime.apply(place.workload(command=command, env=env, secrets=secrets))
        told = said(runtime, the_one(runtime, "running").name, "told:")
        assert told[0].text == f"told: --key=$(API_KEY) $$ 5$$, $(PORT) API_KEY {len(secrets['API_KEY'])}"
