"""What an API server knows and the rules by which it lets that be changed."""

import copy
import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import kubernetes_validate

Object = dict[str, Any]
Key = tuple[str, str, str]  # resource ("pods", "deployments.apps"), namespace, name

VERSION = "1.36"
# Lists whose items have a key; all others are owned and replaced as one.
KEYED = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "ownerReferences": "uid",
}
KEYED |= {"ports": "containerPort", "imagePullSecrets": "name", "conditions": "type"}
CLUSTER_WIDE = {"nodes"}


class Refusal(Exception):
    """What is answered instead: a Status with these."""

    def __init__(self, code: int, reason: str, message: str, causes: list[Object] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.causes = code, reason, message, causes or []


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Objects with versions, owners of fields, and a history for watches."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = 100
        self.objects: dict[Key, Object] = {}
        self.owned: dict[Key, dict[str, set[tuple[str, ...]]]] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.compacted = 0  # a watch from before this gets 410

    # ── reading ─────────────────────────────────────────────────────────────────────────────────
    def get(self, key: Key) -> Object:
        with self.lock:
            if key not in self.objects:
                raise Refusal(404, "NotFound", f'{key[0]} "{key[2]}" not found')
            return copy.deepcopy(self.objects[key])

    def all(self, resource: str, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        with self.lock:
            return [
                copy.deepcopy(one)
                for (kind, space, _), one in sorted(self.objects.items())
                if kind == resource and namespace in {"", space} and matches(one, labels, fields)
            ]

    def since(self, resource: str, version: int) -> list[tuple[int, str, Object]]:
        with self.lock:
            if version < self.compacted:
                raise Refusal(410, "Expired", f"too old resource version: {version} ({self.compacted})")
            return [(at, kind, one) for at, kind, what, one in self.history if what == resource and at > version]

    def compact(self) -> None:
        """Forget the history, as etcd does every five minutes."""
        with self.lock:
            self.compacted, self.history = self.version, []

    # ── writing ─────────────────────────────────────────────────────────────────────────────────
    def apply(self, key: Key, body: Object, manager: str, *, force: bool) -> tuple[Object, bool]:
        """Server-side apply; the object and whether it is new."""
        with self.lock:
            there = self.objects.get(key)
            expect(there, body)
            mine = set(leaves(strip(body)))
            owned = self.owned.setdefault(key, {})
            others = {name: paths for name, paths in owned.items() if name != manager}
            clashes = [
                (name, path)
                for path in sorted(mine)
                for name, paths in others.items()
                if path in paths and value_at(there or {}, path) != value_at(body, path)
            ]
            if clashes and not force:
                raise conflict(clashes)
            after = copy.deepcopy(there) if there else {"metadata": {}}
            for path in owned.get(manager, set()) - mine:
                if not any(path in paths for paths in others.values()):
                    remove(after, path)
            merge_applied(after, body)
            self._check(key, after, new=there is None)
            for name, path in clashes:
                owned[name].discard(path)
            owned[manager] = mine
            return self._put(key, after, "ADDED" if there is None else "MODIFIED"), there is None

    def merge(self, key: Key, body: Object, manager: str) -> Object:
        """A merge patch: what it sets belongs to this manager."""
        with self.lock:
            there = self.get(key)
            expect(there, body)
            merged = merge_patch(there, strip(body))
            for name, paths in self.owned.setdefault(key, {}).items():
                if name != manager:
                    paths -= {path for path in paths if value_at(there, path) != value_at(merged, path)}
            changed = {path for path in leaves(strip(body)) if value_at(there, path) != value_at(merged, path)}
            self.owned[key].setdefault(manager, set()).update(changed)
            return self._put(key, merged, "MODIFIED")

    def create(self, key: Key, body: Object) -> Object:
        with self.lock:
            if key in self.objects:
                raise Refusal(409, "AlreadyExists", f'{key[0]} "{key[2]}" already exists')
            return self._put(key, copy.deepcopy(body), "ADDED")

    def status(self, key: Key, status: Object) -> None:
        """What a controller or kubelet reports."""
        with self.lock:
            if key in self.objects and self.objects[key].get("status") != status:
                self._put(key, {**self.objects[key], "status": copy.deepcopy(status)}, "MODIFIED")

    def spec(self, key: Key, **changes: Any) -> None:
        with self.lock:
            one = self.objects[key]
            self._put(key, {**one, "spec": {**one["spec"], **changes}}, "MODIFIED")

    def delete(self, key: Key, options: Mapping[str, Any]) -> Object:
        """Pods on a node go when their kubelet has ended them, everything else at once."""
        with self.lock:
            there = self.get(key)
            wanted = options.get("preconditions") or {}
            meta = there["metadata"]
            for name in ("uid", "resourceVersion"):
                if wanted.get(name, meta[name]) != meta[name]:
                    raise Refusal(409, "Conflict", f"Precondition failed: {name} in precondition: {wanted[name]}")
            grace = options.get(
                "gracePeriodSeconds", there.get("spec", {}).get("terminationGracePeriodSeconds", 30)
            )
            if key[0] == "pods" and there["spec"].get("nodeName") and grace:
                if not meta.get("deletionTimestamp"):
                    end = datetime.now(UTC) + timedelta(seconds=grace)
                    meta |= {
                        "deletionTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
                        "deletionGracePeriodSeconds": grace,
                    }
                    return self._put(key, there, "MODIFIED")
                return there
            return self.remove(key)

    def remove(self, key: Key) -> Object:
        """Gone, and with it what it owned."""
        with self.lock:
            gone = self.objects.pop(key)
            self.owned.pop(key, None)
            self._tell(key[0], "DELETED", gone)
            owned = [
                other
                for other, one in self.objects.items()
                if any(ref["uid"] == gone["metadata"]["uid"] for ref in one["metadata"].get("ownerReferences", ()))
            ]
            for other in owned:
                self.delete(other, {})
            return gone

    def _check(self, key: Key, body: Object, *, new: bool) -> None:
        old = self.objects.get(key, {})
        if not new and key[0] == "deployments.apps" and old["spec"]["selector"] != body["spec"]["selector"]:
            cause = {"reason": "FieldValueInvalid", "field": "spec.selector", "message": "field is immutable"}
            raise Refusal(422, "Invalid", f'{key[0]} "{key[2]}" is invalid', [cause])
        if (error := invalid(json.dumps(manifest_of(body), sort_keys=True))) is not None:
            cause = {"reason": "FieldValueInvalid", "field": error[0], "message": error[1]}
            raise Refusal(422, "Invalid", f'{key[0]} "{key[2]}" is invalid', [cause])

    def _put(self, key: Key, body: Object, kind: str) -> Object:
        before = self.objects.get(key)
        if before is not None and same(before, body):
            return copy.deepcopy(before)  # a write that changes nothing makes no version
        meta = body.setdefault("metadata", {})
        meta.setdefault("name", key[2])
        if key[0] not in CLUSTER_WIDE:
            meta["namespace"] = key[1]
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", now())
        if "spec" in body and (before is None or before.get("spec") != body["spec"]):
            meta["generation"] = meta.get("generation", 0) + 1
        if key[0] == "deployments.apps":
            body["spec"].setdefault("replicas", 1)
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        self.objects[key] = body
        self._tell(key[0], kind, body)
        return copy.deepcopy(body)

    def _tell(self, resource: str, kind: str, body: Object) -> None:
        if kind == "DELETED":
            self.version += 1
            body["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, kind, resource, copy.deepcopy(body)))
        self.changed.notify_all()


def conflict(clashes: list[tuple[str, tuple[str, ...]]]) -> Refusal:
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{name}"', "field": "." + ".".join(path)}
        for name, path in clashes
    ]
    count = f"{len(causes)} conflict" + "s" * (len(causes) > 1)
    return Refusal(409, "Conflict", f"Apply failed with {count}", causes)


def expect(there: Object | None, body: Object) -> None:
    """A uid and a resourceVersion in a patch must be the present ones."""
    uid = body.get("metadata", {}).get("uid")
    if uid and (there is None or there["metadata"]["uid"] != uid):
        raise Refusal(409, "Conflict", f"uid mismatch: the provided object specified uid {uid}")
    wanted = body.get("metadata", {}).get("resourceVersion")
    if wanted and (there is None or there["metadata"]["resourceVersion"] != wanted):
        name = body["metadata"].get("name", "")
        raise Refusal(
            409,
            "Conflict",
            f'Operation cannot be fulfilled on "{name}": the object has been modified; '
            "please apply your changes to the latest version and try again",
        )


def strip(body: Object) -> Object:
    """Without what names an object rather than being a field of it."""
    meta = {
        key: value
        for key, value in body.get("metadata", {}).items()
        if key not in {"name", "namespace", "resourceVersion", "uid"}
    }
    return {key: value for key, value in body.items() if key not in {"apiVersion", "kind"}} | {"metadata": meta}


def manifest_of(body: Object) -> Object:
    """As somebody would have written it."""
    meta = {key: value for key, value in body["metadata"].items() if key in {"labels", "annotations"}}
    return {key: value for key, value in body.items() if key != "status"} | {"metadata": {"name": "x", **meta}}


@cache
def invalid(manifest: str) -> tuple[str, str] | None:
    """Field and words of what is wrong with it, unknown fields included. (A look at the schema takes a while.)"""
    try:
        kubernetes_validate.validate(json.loads(manifest), VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return ".".join(map(str, error.path)), str(error.message)
    return None


def same(one: Object, other: Object) -> bool:
    def bare(body: Object) -> Object:
        return {**body, "metadata": {k: v for k, v in body["metadata"].items() if k != "resourceVersion"}}

    return bare(one) == bare(other)


def leaves(body: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of the fields; items of keyed lists by `[key=value]`."""
    if isinstance(body, dict) and body:
        for key, value in body.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(body, list) and body and path[-1] in KEYED:
        key = KEYED[path[-1]]
        for item in body:
            yield from leaves(item, (*path, f"[{key}={item[key]}]"))
    elif path:
        yield path


def value_at(body: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        if isinstance(body, list):
            key, _, wanted = step.strip("[]").partition("=")
            body = next((item for item in body if str(item.get(key)) == wanted), None)
        elif isinstance(body, dict):
            body = body.get(step)
        if body is None:
            return None
    return body


def remove(body: Any, path: tuple[str, ...]) -> None:
    if len(path) > 1 and path[-2].startswith(f"[{path[-1]}="):
        path = path[:-1]  # without its key, an item of a list is none
    parent = value_at(body, path[:-1]) if len(path) > 1 else body
    if isinstance(parent, dict):
        parent.pop(path[-1], None)
        if not parent and len(path) > 1:
            remove(body, path[:-1])
    elif isinstance(parent, list):
        key, _, wanted = path[-1].strip("[]").partition("=")
        parent[:] = [item for item in parent if str(item.get(key)) != wanted]


def merge_applied(there: Any, body: Any, name: str = "") -> Any:
    """The applied fields laid over what is there."""
    if isinstance(there, dict) and isinstance(body, dict):
        for key, value in body.items():
            if name != "metadata" or key not in {"resourceVersion", "uid"}:
                there[key] = merge_applied(there.get(key), value, key)
        return there
    if isinstance(there, list) and isinstance(body, list) and name in KEYED:
        key = KEYED[name]
        known = {item[key]: item for item in there}
        return [merge_applied(known.pop(item[key], None), item) for item in body] + list(known.values())
    return copy.deepcopy(body)


def merge_patch(there: Any, body: Any) -> Any:
    """RFC 7386."""
    if not isinstance(body, dict):
        return body
    merged = dict(there) if isinstance(there, dict) else {}
    for key, value in body.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def matches(one: Object, labels: str, fields: str) -> bool:
    have = one["metadata"].get("labels") or {}
    wanted = [term.partition("=") for term in labels.split(",") if term]
    if any(have.get(key) != value.removeprefix("=") for key, _, value in wanted):
        return False
    return all(_field(one, term) for term in fields.split(",") if term)


def _field(one: Object, term: str) -> bool:
    name, unlike, value = term.partition("!=")
    if not unlike:
        name, _, value = term.partition("=")
    found = str(value_at(one, tuple(name.split("."))) or "")
    return (found != value) if unlike else (found == value)
