"""How far the fetch of a pod's model is: what its fetching container says of it, a JSON object on each line."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from endpoints.runtimes.base import Observed, Phase
from endpoints.runtimes.kubernetes import lives
from endpoints.runtimes.kubernetes.api import Api, Refused, Silent, path_of
from endpoints.runtimes.kubernetes.podspec import FETCH
from endpoints.sources.store import readable

FRESH = 1.0  # seconds for which what was read is good: that is as often as more is said
MOST = 200  # pods remembered
TAIL = 5  # lines in which it is looked for

Done = tuple[int, int]


class Fetching:
    """Of one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self._read: dict[str, tuple[float, Done | None]] = {}
        self._lock = threading.Lock()

    def told(self, pod: Mapping[str, Any], one: Observed) -> Observed:
        """The instance, with the bytes that came, while its pod fetches."""
        if one.phase != Phase.STARTING or one.reason or not lives.is_fetching(pod):
            return one
        return replace(one, fetched=self._progress(pod))

    def _progress(self, pod: Mapping[str, Any]) -> Done | None:
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        with self._lock:
            known = self._read.get(uid)
        if known and time.monotonic() - known[0] < FRESH:
            return known[1]
        try:
            path = path_of("v1", "pods", self.namespace, name, "log")
            found = progress(self.api.text(path, container=FETCH, tailLines=TAIL))
        except (Refused, Silent):  # it has just begun, or ended, or its node is slow to answer
            found = None
        found = found or (known[1] if known else None)
        with self._lock:
            if len(self._read) >= MOST:
                self._read.clear()
            self._read[uid] = (time.monotonic(), found)
        return found


def progress(text: str) -> Done | None:
    """From the last line that tells of bytes."""
    return next((done for line in reversed(text.splitlines()) if (done := _done(_told(line)))), None)


def words(line: str) -> str:
    """The same for people; as it is where it tells of nothing known."""
    told = _told(line)
    if done := _done(told):
        return f"fetched {readable(done[0])} of {readable(done[1])}"
    if told.get("waiting"):
        return "waiting for another pod, which fetches the same or makes room"
    if told.get("path"):
        return f"the model is there: {told['path']}{_removed(told.get('cache'))}"
    return str(told.get("error") or told.get("message") or line)


def _removed(cache: Any) -> str:
    gone = cache.get("removed") if isinstance(cache, dict) else 0
    return f"; others had to go for it: {gone}, {readable(int(cache['removed_size']))}" if gone else ""


def _done(told: Mapping[str, Any]) -> Done | None:
    done, total = told.get("done"), told.get("total")
    return (done, total) if isinstance(done, int) and isinstance(total, int) else None


def _told(line: str) -> Mapping[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
