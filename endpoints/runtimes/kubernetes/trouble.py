"""What only the cluster's events tell of a pod that does not get on: a volume or a network that is not there."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from endpoints.runtimes.base import Observed, Phase
from endpoints.runtimes.kubernetes.api import Api, Refused, Silent, path_of
from endpoints.runtimes.kubernetes.reasons import short
from endpoints.runtimes.kubernetes.times import moment

PATIENCE = timedelta(seconds=20)  # for how long a pod may say nothing
FRESH = 10.0  # seconds for which what was read is good
MOST = 200  # pods remembered
JUST_NOW = timedelta(seconds=10)
WORDS = {
    "FailedMount": "A volume can't be mounted",
    "FailedAttachVolume": "A volume can't be attached to the node",
    "FailedMapVolume": "A volume can't be mounted",
    "FailedCreatePodSandBox": "The pod's network can't be set up",
    "NetworkNotReady": "The node's network is not ready",
    "NodeNotReady": "Its node does not answer",
}


class Trouble:
    """The last warning about each pod that is starting and silent, read now and then."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self._read: dict[str, tuple[float, tuple[str, str]]] = {}
        self._lock = threading.Lock()

    def told(self, pod: Mapping[str, Any], one: Observed, at: datetime) -> Observed:
        """The instance, with the reason and words that an event gives where its pod has none itself."""
        if one.phase != Phase.STARTING or one.reason or at - one.started_at < PATIENCE:
            return one
        reason, message = self._warning(pod["metadata"]["uid"])
        return replace(one, reason=reason, message=message) if reason else one

    def refused(self, deployment: str) -> str:
        """Why the cluster made no pod for a Deployment just now; "" if nothing says so."""
        query = "involvedObject.kind=ReplicaSet,reason=FailedCreate"
        found = self.api.list(path_of("v1", "events", self.namespace), fieldSelector=query).items
        since = datetime.now(UTC) - JUST_NOW
        ours = [
            one
            for one in found
            if str(one["involvedObject"]["name"]).rpartition("-")[0] == deployment
            and (moment(_when(one)) or since) > since
        ]
        said = str(max(ours, key=_when).get("message", "")) if ours else ""
        return short(said.removeprefix("Error creating: "))

    def _warning(self, uid: str) -> tuple[str, str]:
        with self._lock:
            known = self._read.get(uid)
        if known and time.monotonic() - known[0] < FRESH:
            return known[1]
        try:
            query = f"involvedObject.uid={uid},type=Warning"
            found = self.api.list(path_of("v1", "events", self.namespace), fieldSelector=query).items
        except (Refused, Silent):  # a role may keep them from us
            found = []
        ours = sorted((one for one in found if one.get("reason") in WORDS), key=_when)
        warning = (ours[-1]["reason"], _sentence(ours[-1])) if ours else ("", "")
        with self._lock:
            if len(self._read) >= MOST:
                self._read.clear()
            self._read[uid] = (time.monotonic(), warning)
        return warning


def _when(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _sentence(event: Mapping[str, Any]) -> str:
    return f"{WORDS[event['reason']]}: {short(event.get('message', ''))}"
