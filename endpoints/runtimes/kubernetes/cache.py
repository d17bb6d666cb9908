"""A claim that keeps models: which of them are in use, and how full it was when a pod last looked.

Pods alone have the claim mounted, so a fetch makes room in it by itself; endpoints.sources.shared says why that is
safe. What it has to know is written here: every model that a Deployment or a pod of the namespace mounts, whoever
made it, since a claim can be mounted in its own namespace only. What a pod saw comes back with its status.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from endpoints.cached import Cached
from endpoints.runtimes.kubernetes import labels, podspec
from endpoints.runtimes.kubernetes.api import Api, Object, path_of
from endpoints.runtimes.kubernetes.settings import Settings
from endpoints.sources import shared


class Cache:
    """Of one namespace; does nothing in a region without one."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self.api, self.settings = api, settings

    def tell(self) -> None:
        """Write down what is in use, for pods that fetch from now on."""
        if not self.settings.cache:
            return
        at, namespace = time.time(), self.settings.namespace
        made = self.api.list(path_of("apps/v1", "deployments", namespace)).items
        pods = self.api.list(path_of("v1", "pods", namespace)).items
        specs = [*(one["spec"]["template"]["spec"] for one in made), *(pod["spec"] for pod in pods)]
        there = in_use(self.settings, shared.written(models(specs), at))
        self.api.apply(path_of("v1", "secrets", namespace, there["metadata"]["name"]), there)

    def seen(self) -> Cached | None:
        """As the pod saw it that fetched last; None if none told of it yet."""
        if not self.settings.cache:
            return None
        ours = labels.selector(self.settings.installation)
        pods = self.api.list(path_of("v1", "pods", self.settings.namespace), labelSelector=ours).items
        told = (one for pod in pods if self._mounts(pod) for one in _told(pod))
        return max(
            (Cached(self.settings.cache, at, **room) for at, room in told), key=lambda one: one.at, default=None
        )

    def _mounts(self, pod: Object) -> bool:
        claims = [one.get("persistentVolumeClaim") or {} for one in pod["spec"].get("volumes") or ()]
        return any(one.get("claimName") == self.settings.cache for one in claims)


def models(specs: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The models' folders that pods of these specs mount, in whichever claim."""
    return frozenset(
        path
        for spec in specs
        for container in spec["containers"]
        for mount in container.get("volumeMounts") or ()
        if shared.MODEL.fullmatch(path := str(mount.get("subPath", "")))
    )


def in_use(settings: Settings, listed: str) -> Object:
    """What pods that fetch read of the others' models."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": podspec.in_use_name(settings),
            "namespace": settings.namespace,
            "labels": {**labels.COMMON, labels.INSTALLATION: settings.installation},
        },
        "type": "Opaque",
        "data": {podspec.LISTED: base64.b64encode(listed.encode()).decode("ascii")},
    }


def _told(pod: Object) -> Iterator[tuple[str, dict[str, int]]]:
    """When a fetch ended, and how full it found the cache."""
    for status in (pod.get("status") or {}).get("initContainerStatuses") or ():
        for state in (status.get("state") or {}, status.get("lastState") or {}):
            end = state.get("terminated") or {}
            room = _room(str(end.get("message") or ""))
            if status["name"] == podspec.FETCH and room and end.get("finishedAt"):
                yield str(end["finishedAt"]), room


def _room(message: str) -> dict[str, int] | None:
    try:
        told = json.loads(message.strip().rpartition("\n")[2])["cache"]
        return {name: int(told[name]) for name in ("total", "free", "models", "size", "removed", "removed_size")}
    except (ValueError, KeyError, TypeError):  # of an image of before, or of something else that ended it
        return None
