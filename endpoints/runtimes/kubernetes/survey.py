"""A look around the whole cluster, which a role may forbid; what was seen is good for some seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from endpoints.capacity import Capacity
from endpoints.runtimes.kubernetes import labels, room
from endpoints.runtimes.kubernetes.api import Api, Object, Refused, Silent, path_of
from endpoints.runtimes.kubernetes.settings import Settings
from endpoints.runtimes.kubernetes.words import sentence

FRESH = 2.0  # seconds for which a look is good, unless we changed something
ALIVE = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True)
class Seen:
    """The nodes that take instances, their processors, and the pods that hold room on any."""

    nodes: list[room.Node]
    architectures: tuple[str, ...]
    pods: list[Object]
    taken_at: float


class Survey:
    """Lists of a whole cluster are long, so a look serves everybody who asks within some seconds."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self.api, self.settings = api, settings
        self._last: Seen | None = None
        self._lock = threading.Lock()

    def capacity(self) -> Capacity:
        """See Runtime.capacity. Unknown, with the reason, where the role doesn't let us see nodes or pods."""
        try:
            seen = self._seen()
        except Refused as refused:
            if refused.status != 403:
                raise
            return room.unknown(f"{sentence(refused, 'the cluster')} What it holds is not known.")
        waiting = room.Amount()
        for pod in seen.pods:
            ours = labels.label(pod, labels.INSTALLATION) == self.settings.installation
            if (
                ours
                and not pod["spec"].get("nodeName")
                and pod["metadata"]["namespace"] == self.settings.namespace
            ):
                waiting += room.promised(pod, self.settings.gpu_resource)
        quota, extra = self._quota()
        found = room.capacity(seen.nodes, waiting, quota, extra, self.settings.pools)
        return replace(found, architectures=seen.architectures)

    def architectures(self) -> tuple[str, ...]:
        """Of the nodes that take instances, as Go names them; none where they may not be seen."""
        try:
            return self._seen().architectures
        except Refused as refused:
            if refused.status != 403:
                raise
            return ()

    def shortage(self, pod: Mapping[str, Any]) -> str:
        """What a pod without a node lacks, in numbers; "" where they can't be had."""
        try:
            return room.shortage(pod, self._seen().nodes, self.settings.gpu_resource)
        except (Refused, Silent):
            return ""

    def forget(self) -> None:
        """What was seen no longer holds: pods come or go."""
        with self._lock:
            self._last = None

    def _seen(self) -> Seen:
        with self._lock:
            seen = self._last
        return seen if seen and time.monotonic() - seen.taken_at < FRESH else self._look()

    def _look(self) -> Seen:
        found = self.api.list(path_of("v1", "nodes")).items
        pods = self.api.list(path_of("v1", "pods"), fieldSelector=ALIVE).items
        taking = room.nodes(found, pods, self.settings.pools, self.settings.gpu_resource)
        names = {node.name for node in taking}
        made_of = {_architecture(one) for one in found if one["metadata"]["name"] in names} - {""}
        seen = Seen(taking, tuple(sorted(made_of)), pods, time.monotonic())
        with self._lock:
            self._last = seen
        return seen

    def _quota(self) -> tuple[room.Amount | None, str]:
        try:
            found = self.api.list(path_of("v1", "resourcequotas", self.settings.namespace)).items
        except Refused as refused:
            if refused.status != 403:
                raise
            return None, "; quotas of the namespace may not be seen"
        return room.quota_left(found, self.settings.gpu_resource), ""


def _architecture(node: Object) -> str:
    return str(((node.get("status") or {}).get("nodeInfo") or {}).get("architecture") or "")
