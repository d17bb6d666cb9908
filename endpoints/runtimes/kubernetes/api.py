"""One cluster's API over HTTP, with plain dictionaries: lists, server-side apply, watches, and its errors."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

Object = dict[str, Any]

MANAGER = "tir-console"
PAGE = 500
PATIENCE = (3.0, 20.0)  # seconds to connect, and between two bytes of an answer
TRIES = 3  # of a call that the cluster refuses for a moment
LONGEST_PAUSE = 1.0
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
QUOTED = re.compile(r"/?\{.*\}")  # what an error repeats of a kubeconfig, secrets and all
VERBS = {"GET": "get", "PATCH": "patch", "DELETE": "delete", "POST": "create"}


class Silent(Exception):
    """The API server can't be reached, or what came back was no answer."""


@dataclass(frozen=True)
class Refused(Exception):
    """The API server said no. `causes` are its details, each with `reason`, `message` and `field`."""

    status: int
    reason: str
    message: str
    causes: tuple[Mapping[str, str], ...] = ()
    verb: str = ""
    resource: str = ""

    def __str__(self) -> str:
        return self.message

    @property
    def is_field_conflict(self) -> bool:
        """Whether somebody else owns a field that we would set, rather than that the object has changed."""
        return self.status == 409 and any(one.get("reason") == "FieldManagerConflict" for one in self.causes)


@dataclass(frozen=True)
class Listed:
    """What was there, and the version to watch on from."""

    items: list[Object]
    version: str


def path_of(group: str, resource: str, namespace: str = "", name: str = "", sub: str = "") -> str:
    """`group` as in "apps/v1"; "v1" for the core's."""
    root = f"/api/{group}" if "/" not in group else f"/apis/{group}"
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{inside}/{resource}" + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")


class Api:
    """Calls of one cluster. Connects at the first call; threads may share it."""

    def __init__(self, kubeconfig: str, context: str) -> None:
        self.kubeconfig, self.context = kubeconfig, context
        self._lock = threading.Lock()

    @cached_property
    def _client(self) -> Any:
        from kubernetes import client, config  # noqa: PLC0415  half a second
        from yaml import YAMLError  # noqa: PLC0415  comes with the client

        with self._lock:
            settings = client.Configuration()
            settings.retries = False
            try:
                if self.kubeconfig:
                    config.load_kube_config(  # type: ignore[no-untyped-call]
                        self.kubeconfig, self.context or None, client_configuration=settings, persist_config=False
                    )
                else:
                    config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            except (config.ConfigException, YAMLError, OSError, ValueError) as error:
                said = QUOTED.sub("", " ".join(str(error).split()))
                raise Silent(f"the cluster's access can't be read: {said}") from None
            return client.ApiClient(settings)

    def get(self, path: str, **query: Any) -> Object:
        """One object."""
        return self._json("GET", path, query)

    def text(self, path: str, **query: Any) -> str:
        """A log."""
        return self._call("GET", path, query).decode("utf-8", "replace")

    def list(self, path: str, **query: Any) -> Listed:
        """All of them, in pages. A page that came too late (410) begins the whole list anew."""
        for attempt in range(TRIES):
            try:
                return self._pages(path, query)
            except Refused as refused:
                if refused.status != 410 or attempt == TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _pages(self, path: str, query: Mapping[str, Any]) -> Listed:
        items: list[Object] = []
        rest = ""
        while True:
            answer = self._json("GET", path, {**query, "limit": PAGE, "continue": rest or None}, verb="list")
            items += answer.get("items") or []
            rest = answer.get("metadata", {}).get("continue", "")
            if not rest:
                return Listed(items, answer.get("metadata", {}).get("resourceVersion", ""))

    def apply(self, path: str, body: Object, *, manager: str = MANAGER, force: bool = False) -> Object:
        """Server-side apply: the fields in `body` are this manager's, all others are left alone."""
        query = {"fieldManager": manager, "force": "true" if force else "false", "fieldValidation": "Strict"}
        return self._json("PATCH", path, query, body, APPLY)

    def merge(self, path: str, body: Object) -> Object:
        """A merge patch, for annotations of pods that a ReplicaSet made."""
        return self._json("PATCH", path, {"fieldManager": MANAGER}, body, MERGE)

    def delete(self, path: str, **options: Any) -> None:
        """Ask for the end of an object. Gone already is as good."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
        try:
            self._json("DELETE", path, {}, body, "application/json")
        except Refused as refused:
            if refused.status != 404:
                raise

    def watch(self, path: str, version: str, seconds: float, **query: Any) -> Iterator[tuple[str, Object]]:
        """What was ADDED, MODIFIED or DELETED after `version`, for so long at most. Refused with 410 when that is
        too old."""
        query |= {"watch": "true", "resourceVersion": version, "timeoutSeconds": max(1, round(seconds))}
        answer = self._open("GET", path, query, None, "", timeout=(PATIENCE[0], max(0.05, seconds)))
        rest = b""
        try:
            for chunk in _chunks(answer):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _refusal(event["object"].get("code", 500), line, "watch", path)
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]
        except ValueError as error:
            raise Silent(f"the cluster sent no event: {error}") from error
        finally:
            answer.close()

    def _json(
        self, method: str, path: str, query: Mapping[str, Any], body: Any = None, kind: str = "", verb: str = ""
    ) -> Object:
        raw = self._call(method, path, query, body, kind, verb)
        try:
            found: Object = json.loads(raw)
        except ValueError as error:
            raise Silent(f"the cluster's answer is no JSON: {raw[:80]!r}") from error
        return found

    def _call(
        self, method: str, path: str, query: Mapping[str, Any], body: Any = None, kind: str = "", verb: str = ""
    ) -> bytes:
        """The answer's body. Tries again for what passes by itself: too many calls, a moment's overload."""
        for attempt in range(1, TRIES + 1):
            answer = self._open(method, path, query, body, kind, timeout=PATIENCE)
            raw = b"".join(_chunks(answer))
            if answer.status < 300:
                return raw
            refusal = _refusal(answer.status, raw, verb or VERBS[method], path)
            pause = _pause(answer, refusal, attempt)
            if attempt == TRIES or pause is None:
                raise refusal
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Any,
        kind: str,
        *,
        timeout: tuple[float, float],
    ) -> Any:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415  comes with the client

        client = self._client
        given = urlencode({name: value for name, value in query.items() if value is not None})
        headers = {"Accept": "application/json, */*", "User-Agent": "tir-console"}
        try:
            client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            return client.rest_client.pool_manager.request(
                method,
                f"{client.configuration.host}{path}" + (f"?{given}" if given else ""),
                headers=headers | ({"Content-Type": kind} if kind else {}),
                body=json.dumps(body).encode() if body is not None else None,
                timeout=_timeout(timeout),
                preload_content=False,
                redirect=False,
            )
        except (HTTPError, OSError) as error:
            raise Silent(f"the cluster at {client.configuration.host} can't be reached: {error}") from error


def _timeout(seconds: tuple[float, float]) -> Any:
    from urllib3 import Timeout  # noqa: PLC0415  comes with the client

    return Timeout(connect=seconds[0], read=seconds[1])


def _chunks(answer: Any) -> Iterator[bytes]:
    """What is sent, as it comes."""
    from urllib3.exceptions import HTTPError  # noqa: PLC0415  comes with the client

    try:
        yield from answer.stream(65_536, decode_content=True)
    except (HTTPError, OSError) as error:
        raise Silent(f"the cluster's answer broke off: {error}") from error


def _refusal(status: int, raw: bytes, verb: str, path: str) -> Refused:
    try:
        said = json.loads(raw)
        said = said.get("object", said)
        message, reason = str(said.get("message", "")), str(said.get("reason", ""))
        causes = tuple((said.get("details") or {}).get("causes") or ())
    except (ValueError, AttributeError):
        message, reason, causes = raw[:300].decode("utf-8", "replace"), "", ()
    return Refused(status, reason, message or f"HTTP {status}", causes, verb, _resource(path))


def _resource(path: str) -> str:
    """ "pods" or "deployments.apps", as roles have it."""
    parts = path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" else ""
    rest = parts[3:] if group else parts[2:]
    rest = rest[2:] if rest and rest[0] == "namespaces" and len(rest) > 2 else rest
    name = rest[0] + (f"/{rest[2]}" if len(rest) > 2 else "") if rest else ""
    return f"{name}.{group}" if group else name


def _pause(answer: Any, refusal: Refused, attempt: int) -> float | None:
    """Seconds to wait before another try; None where none helps."""
    stale = refusal.status == 409 and refusal.reason == "Conflict" and not refusal.causes
    asked = answer.headers.get("Retry-After", "")
    if refusal.status == 429 or (refusal.status in {500, 503, 504} and asked):
        return min(LONGEST_PAUSE, float(asked) if asked.isdigit() else 0.1 * 2**attempt)
    return 0.02 * attempt if stale and refusal.verb == "patch" else None
