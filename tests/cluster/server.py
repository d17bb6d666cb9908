"""The API server's HTTP: paths, verbs, pages, watches, logs, roles, and faults that a test orders."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.cluster.store import Key, Object, Refusal, Store

CONFIG = """apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: here, cluster: {{server: "{url}"}}}}]
users: [{{name: console, user: {{token: "{token}"}}}}]
contexts: [{{name: here, context: {{cluster: here, user: console}}}}]
"""
TOKEN = "a-token-that-is-a-secret"
METRICS = "pods.metrics.k8s.io"


@dataclass(frozen=True)
class Asked:
    """One request, as an authoriser sees it."""

    verb: str
    group: str
    resource: str  # with its subresource
    namespace: str
    name: str
    sub: str = ""
    query: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        bare = self.resource.partition("/")[0]
        if bare == "namespaces":
            return (bare, "", self.name)
        return (f"{bare}.{self.group}" if self.group else bare, self.namespace, self.name)


@dataclass(frozen=True)
class Rule:
    """One verb that a role allows, `namespaced` or for the whole cluster."""

    verb: str
    group: str
    resource: str
    namespaced: bool


Fault = Callable[[Asked], Refusal | None]


class Cluster:
    """A store behind a port of this machine."""

    def __init__(self) -> None:
        self.store = Store()
        self.used: set[Rule] = set()
        self.allowed: set[Rule] | None = None  # None: everything
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.logs: dict[tuple[str, str, int], list[str]] = {}  # (pod, container, restart) -> stamped lines
        self.unheard = 0  # restarts that a kubelet knows of and has not told yet
        self.page_size = 500
        self.expired_pages = 0  # this many continued lists get 410
        self.metrics: list[Object] | None = None  # None: no metrics server
        self.woken = threading.Event()
        cluster = self

        class Bound(_Handler):
            pass

        Bound.cluster = cluster
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        with self.store.lock:
            self.store.changed.notify_all()

    def kubeconfig(self, folder: Path) -> str:
        path = folder / "kubeconfig"
        path.write_text(CONFIG.format(url=self.url, token=TOKEN), encoding="utf-8")
        return str(path)

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """Meanwhile requests that it has an answer for get that answer."""
        self.faults.append(fault)
        yield
        self.faults.remove(fault)

    def fail(self, times: int, refusal: Refusal, *, verb: str = "", resource: str = "") -> None:
        """The next so many requests of this kind are refused."""
        left = [times]

        def fault(asked: Asked) -> Refusal | None:
            if left[0] and verb in {"", asked.verb} and resource in {"", asked.resource}:
                left[0] -= 1
                return refusal
            return None

        self.faults.append(fault)

    def admit(self, asked: Asked, token: str) -> None:
        """Record the verb; refuse strangers, and what a fault or a role refuses."""
        if token != f"Bearer {TOKEN}":
            raise Refusal(401, "Unauthorized", "Unauthorized")
        self.asked.append(asked)
        for fault in list(self.faults):
            if (refusal := fault(asked)) is not None:
                raise refusal
        self.authorise(asked)

    def authorise(self, asked: Asked) -> None:
        rule = Rule(asked.verb, asked.group, asked.resource, bool(asked.namespace))
        self.used.add(rule)
        if self.allowed is not None and rule not in self.allowed:
            where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
            raise Refusal(
                403,
                "Forbidden",
                f'{asked.resource} is forbidden: User "system:serviceaccount:tir:console" cannot {asked.verb} '
                f'resource "{asked.resource}" in API group "{asked.group}" {where}',
            )


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        return

    def do_GET(self) -> None:
        self._answer("get")

    def do_PATCH(self) -> None:
        self._answer("patch")

    def do_DELETE(self) -> None:
        self._answer("delete")

    def do_POST(self) -> None:
        self._answer("create")

    def _answer(self, verb: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        with suppress(BrokenPipeError, ConnectionResetError):
            try:
                asked = asked_of(verb, self.path)
                self.cluster.admit(asked, self.headers.get("Authorization", ""))
                getattr(self, f"_{asked.verb}")(asked, body)
            except Refusal as refusal:
                self._refuse(refusal)

    def _get(self, asked: Asked, body: Object) -> None:
        if asked.sub == "log":
            self._log(asked)
        else:
            self._send(200, self.cluster.store.get(asked.key))

    def _list(self, asked: Asked, body: Object) -> None:
        if asked.key[0] == METRICS:
            if self.cluster.metrics is None:
                raise Refusal(404, "NotFound", "the server could not find the requested resource")
            self._send(200, {"items": self.cluster.metrics, "metadata": {}})
            return
        labels, fields = asked.query.get("labelSelector", ""), asked.query.get("fieldSelector", "")
        with self.cluster.store.lock:
            found = self.cluster.store.all(asked.key[0], asked.namespace, labels, fields)
            version = self.cluster.store.version
        begin = int(asked.query.get("continue") or 0)
        if begin and self.cluster.expired_pages:
            self.cluster.expired_pages -= 1
            raise Refusal(
                410, "Expired", "The provided continue parameter is too old to display a consistent list."
            )
        size = min(int(asked.query.get("limit") or 10**9), self.cluster.page_size)
        meta: Object = {"resourceVersion": str(version)}
        if begin + size < len(found):
            meta["continue"] = str(begin + size)
        self._send(200, {"items": found[begin : begin + size], "metadata": meta})

    def _watch(self, asked: Asked, body: Object) -> None:
        store = self.cluster.store
        version = int(asked.query.get("resourceVersion") or 0)
        labels = asked.query.get("labelSelector", "")
        ends = threading.Event()
        timer = threading.Timer(float(asked.query.get("timeoutSeconds", "60")), ends.set)
        timer.daemon = True
        timer.start()
        self._headers(200, chunked=True)
        self._chunk({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": str(version)}}})
        wanted = [term.split("=", 1) for term in labels.split(",") if term]
        while not ends.is_set() and self.cluster.thread.is_alive():
            with store.lock:
                try:
                    events = store.since(asked.key[0], version)
                except Refusal as refusal:
                    self._chunk({"type": "ERROR", "object": status_of(refusal)})
                    break
                if not events:
                    store.changed.wait(0.05)
            for at, kind, one in events:
                version = at
                have = one["metadata"].get("labels", {})
                if one["metadata"]["namespace"] == asked.namespace and all(have.get(k) == v for k, v in wanted):
                    self._chunk({"type": kind, "object": one})
        timer.cancel()
        self.wfile.write(b"0\r\n\r\n")

    def _patch(self, asked: Asked, body: Object) -> None:
        store, kind = self.cluster.store, self.headers["Content-Type"]
        manager = asked.query.get("fieldManager", "unknown")
        if kind == "application/apply-patch+yaml":
            with store.lock:
                if asked.key not in store.objects:
                    self.cluster.authorise(
                        Asked("create", asked.group, asked.resource, asked.namespace, asked.name)
                    )
                made, new = store.apply(asked.key, body, manager, force=asked.query.get("force") == "true")
            self.cluster.woken.set()
            self._send(201 if new else 200, made)
        elif kind == "application/merge-patch+json":
            self._send(200, store.merge(asked.key, body, manager))
        else:
            raise Refusal(415, "UnsupportedMediaType", f"{kind} is not supported")

    def _delete(self, asked: Asked, body: Object) -> None:
        self._send(200, self.cluster.store.delete(asked.key, body))

    def _log(self, asked: Asked) -> None:
        pod = self.cluster.store.get(asked.key)
        container = asked.query.get("container", "")
        statuses = pod.get("status", {})
        both = [*statuses.get("initContainerStatuses", ()), *statuses.get("containerStatuses", ())]
        count = next((one["restartCount"] for one in both if one["name"] == container), 0)
        count += self.cluster.unheard - (asked.query.get("previous") == "true")
        lines = self.cluster.logs.get((asked.name, container, count))
        if lines is None:
            raise Refusal(400, "BadRequest", f'container "{container}" in pod "{asked.name}" is waiting to start')
        since = asked.query.get("sinceTime", "")
        wanted = [line for line in lines if not since or line[:19] >= since[:19]]
        if tail := asked.query.get("tailLines"):
            wanted = wanted[-int(tail) :]
        stamped = asked.query.get("timestamps") == "true"
        text = "".join(f"{line if stamped else line.partition(' ')[2]}\n" for line in wanted)
        self._raw(200, text.encode(), "text/plain")

    def _send(self, code: int, body: Object, **headers: str) -> None:
        self._raw(code, json.dumps(body).encode(), "application/json", **headers)

    def _raw(self, code: int, raw: bytes, kind: str, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def _headers(self, code: int, *, chunked: bool) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, event: Object) -> None:
        raw = json.dumps(event).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
        self.wfile.flush()

    def _refuse(self, refusal: Refusal) -> None:
        extra = {"Retry_After": "1"} if refusal.code == 429 else {}
        self._send(refusal.code, status_of(refusal), **extra)


def status_of(refusal: Refusal) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": refusal.code,
        "reason": refusal.reason,
        "message": refusal.message,
        "details": {"causes": refusal.causes},
    }


def asked_of(verb: str, raw: str) -> Asked:
    """From a path to what is asked for."""
    split = urlsplit(raw)
    query = {name: values[0] for name, values in parse_qs(split.query).items()}
    parts = split.path.strip("/").split("/")
    group, rest = (parts[1], parts[3:]) if parts[0] == "apis" else ("", parts[2:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:  # roles of a namespace hold for itself too
        namespace, rest = rest[1], rest[2:] or rest
    name = rest[1] if len(rest) > 1 else ""
    sub = rest[2] if len(rest) > 2 else ""
    if verb == "get" and not name:
        verb = "watch" if query.get("watch") == "true" else "list"
    return Asked(verb, group, rest[0] + (f"/{sub}" if sub else ""), namespace, name, sub, query)
