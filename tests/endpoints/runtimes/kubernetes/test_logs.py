"""Logs of a pod whose containers are started again, while the kubelet is ahead of what the API tells."""

from typing import Any

import pytest

from endpoints.runtimes.kubernetes.fetching import words
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from tests.cluster.life import HELLO, LAST_WORDS, NAMESPACE, Life
from tests.cluster.server import Cluster
from tests.endpoints.runtimes.contract import the_one
from tests.endpoints.runtimes.kubernetes.conftest import workload
from tests.wait import until

FIRST, SECOND, THIRD = "2026-11-28T11:00:0{}.5Z", "2026-11-28T11:00:2{}.5Z", "2026-11-28T11:00:4{}.5Z"


@pytest.fixture
def crashed(runtime: KubernetesRuntime, cluster: Cluster, life: Life) -> str:
    """The name of a pod that has ended once, and waits for nothing."""
    life.restarts = False
    runtime.apply(workload(1, behave="crash"))
    return the_one(runtime, "exited").name


def texts(runtime: KubernetesRuntime, name: str) -> list[str]:
    return [line.text for line in runtime.logs(name, 0, 50)]


def test_the_next_life_s_lines_are_not_told_of_an_end_that_it_follows(
    runtime: KubernetesRuntime, cluster: Cluster, crashed: str
) -> None:
    cluster.logs[(crashed, "model", 1)] = [f"{FIRST.format(9)} of the next life"]
    cluster.unheard = 1
    assert texts(runtime, crashed) == [HELLO, LAST_WORDS]


def ended(second: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": 1, "reason": "Error", "startedAt": second, "finishedAt": second}}


@pytest.mark.parametrize(
    ("state", "life_name", "wanted"),
    [
        (ended("2026-11-28T11:00:21Z"), ".1", ["second"]),  # its end, while the third runs
        (ended("2026-11-28T11:00:21Z"), "", []),  # the first: the kubelet keeps no more than one of before
        ({"waiting": {"reason": "CrashLoopBackOff"}}, "", []),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, ".1", ["second"]),
    ],
)
def test_each_life_has_its_own_lines_or_none(
    runtime: KubernetesRuntime,
    cluster: Cluster,
    life: Life,
    crashed: str,
    state: dict[str, Any],
    life_name: str,
    wanted: list[str],
) -> None:
    for number, (stamp, text) in enumerate([(FIRST, "first"), (SECOND, "second"), (THIRD, "third")]):
        cluster.logs[(crashed, "model", number)] = [f"{stamp.format(0)} {text}"]
    cluster.unheard = 1
    last = ended("2026-11-28T11:00:21Z" if "waiting" in state else "2026-11-28T11:00:01Z")
    key = ("pods", NAMESPACE, crashed)
    told = {"name": "model", "image": "", "restartCount": 1, "state": state, "lastState": last}
    life.stop()
    cluster.store.status(key, {**cluster.store.get(key)["status"], "containerStatuses": [told]})
    assert texts(runtime, f"{crashed}{life_name}") == wanted


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"done": 1048576, "total": 98362432}', "fetched 1 MiB of 93.8 MiB"),
        ('{"waiting": true}', "waiting for another pod, which fetches the same or makes room"),
        ('{"path": "/m/a", "cache": {"removed": 0, "removed_size": 0}}', "the model is there: /m/a"),
        (
            '{"path": "/m/a", "cache": {"removed": 2, "removed_size": 3221225472}}',
            "the model is there: /m/a; others had to go for it: 2, 3 GiB",
        ),
        ('{"error": "No such bucket.", "code": "x"}', "No such bucket."),
        ("Traceback: { not JSON", "Traceback: { not JSON"),
    ],
)
def test_what_a_fetch_says_is_told_in_words(line: str, said: str) -> None:
    assert words(line) == said


def test_the_last_words_of_a_life_are_told_though_its_log_is_gone(
    runtime: KubernetesRuntime, cluster: Cluster, life: Life, crashed: str
) -> None:
    def is_down() -> bool:
        state = cluster.store.get(("pods", NAMESPACE, crashed))["status"]["containerStatuses"][0]["state"]
        return bool(state.get("waiting", {}).get("reason") == "CrashLoopBackOff")

    assert runtime.logs(crashed, -1, 1)[0].text == LAST_WORDS
    life.restarts = True  # and soon its second life has ended too, of which the API tells alone
    until(is_down, what="the back-off")
    for _ in ("the next life has ended", "the pod is gone"):
        assert texts(runtime, crashed) == []
        assert [line.text for line in runtime.logs(crashed, -40, 40)] == [HELLO, LAST_WORDS]
        assert [line.text for line in runtime.logs(crashed, -1, 40)] == [LAST_WORDS]
        cluster.store.objects.pop(("pods", NAMESPACE, crashed), None)
    runtime.forget(crashed)
    assert runtime.logs(crashed, -40, 40) == []
