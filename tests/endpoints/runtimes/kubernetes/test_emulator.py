"""The same runtime against kmock's emulator: what another's server makes of our calls, with its own faults.

The emulator knows no selectors, versions or server-side apply, so what needs those is asked of tests.cluster.
"""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kmock as another
import pytest

from endpoints.runtimes.base import Phase, Unavailable
from endpoints.runtimes.kubernetes import labels
from endpoints.runtimes.kubernetes.runtime import KubernetesRuntime
from endpoints.runtimes.kubernetes.settings import read
from tests.cluster.life import NAMESPACE
from tests.cluster.server import CONFIG
from tests.endpoints.runtimes.kubernetes.conftest import OWNER
from tests.wait import until

NAME = "endpoint-7-r1-6b9f7c-abcde"


def pod(**status: Any) -> dict[str, Any]:
    ours = {labels.OWNER: OWNER, labels.REVISION: "1", labels.INSTALLATION: "tir"}
    return {
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": ours,
            "creationTimestamp": "2026-11-28T10:00:00Z",
        },
        "spec": {"containers": [{"name": "model", "ports": [{"containerPort": 8000}]}], "nodeName": "n1"},
        "status": status,
    }


RUNNING = {"name": "model", "restartCount": 0, "state": {"running": {"startedAt": "2026-11-28T10:00:01Z"}}}
SERVING = pod(phase="Running", podIP="10.0.0.9", containerStatuses=[RUNNING])


@pytest.fixture
def steered(kmock: another.KubernetesEmulator, tmp_path: Path) -> KubernetesRuntime:
    path = tmp_path / "kubeconfig"
    path.write_text(CONFIG.format(url=str(kmock.url).rstrip("/"), token="t"), encoding="utf-8")
    known: Any = kmock.resources
    known["v1/pods"] = {}
    return KubernetesRuntime(read({"kubeconfig": str(path), "namespace": NAMESPACE}))


async def said(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(call, *arguments)


async def test_what_is_there_is_seen(kmock: another.KubernetesEmulator, steered: KubernetesRuntime) -> None:
    assert await said(steered.observe) == {}
    kmock.objects["v1/pods", NAMESPACE, NAME] = SERVING
    found = (await said(steered.observe))[NAME]
    assert (found.phase, found.address) == (Phase.RUNNING, "http://10.0.0.9:8000")


async def test_the_doorbell_rings_for_one_that_comes(
    kmock: another.KubernetesEmulator, steered: KubernetesRuntime
) -> None:
    waiting = asyncio.create_task(said(steered.wait, OWNER, {}, 30.0))
    await said(until, lambda: any(one.params.get("watch") == "true" for one in kmock))
    body = {"apiVersion": "v1", "kind": "Pod", **SERVING}
    await kmock.post(f"/api/v1/namespaces/{NAMESPACE}/pods", json=body)
    await asyncio.wait_for(waiting, 30)


async def test_a_pod_that_was_given_up_is_deleted_when_it_is_forgotten(
    kmock: another.KubernetesEmulator, steered: KubernetesRuntime
) -> None:
    kmock.objects["v1/pods", NAMESPACE, NAME] = pod(phase="Failed", reason="Evicted", message="low on memory")
    assert (await said(steered.observe))[NAME].reason == "Evicted"
    await said(steered.forget, NAME)
    assert await said(steered.observe) == {}


@pytest.mark.parametrize("status", [401, 403, 404, 410, 500, 503])
async def test_no_refusal_is_read_as_empty(
    kmock: another.KubernetesEmulator, steered: KubernetesRuntime, status: int
) -> None:
    kmock["get", re.compile(".*/pods")] << status
    with pytest.raises(Unavailable, match=str(status) if status != 401 else "kubeconfig"):
        await said(steered.observe)


async def test_half_an_answer_is_no_answer(kmock: another.KubernetesEmulator, steered: KubernetesRuntime) -> None:
    kmock["get", re.compile(".*/pods")] << b'{"items": ['
    with pytest.raises(Unavailable, match="no JSON"):
        await said(steered.observe)
