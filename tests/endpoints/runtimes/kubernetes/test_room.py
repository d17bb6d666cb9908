"""What is free of a cluster, in numbers that help."""

from endpoints.runtimes.kubernetes import room
from tests.cluster.life import node

GPU = "nvidia.com/gpu"


def test_the_largest_piece_is_one_that_something_fits_on() -> None:
    busy = {
        "spec": {"nodeName": "n1", "containers": [{"name": "a", "resources": {"requests": {"cpu": "8"}}}]},
        "metadata": {"name": "a"},
    }
    there = room.nodes([node("n1", memory="32Gi"), node("n2", cpu="2", memory="16Gi")], [busy], {}, GPU)
    assert str(room.largest(there)) == "2 vCPU, 16 GiB", "not the 32 GiB beside which no CPU is left"
