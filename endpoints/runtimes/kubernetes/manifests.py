"""From a workload to the objects that a cluster is asked to have. Pure: no clock, no network."""

from __future__ import annotations

import base64
import json
from typing import Any

from endpoints.runtimes.base import Command, Rejected, Workload
from endpoints.runtimes.kubernetes import labels, podspec
from endpoints.runtimes.kubernetes.settings import Settings, is_network
from endpoints.sources.store import readable

Object = dict[str, Any]

DOCKER_HUB = "https://index.docker.io/v1/"
MARGIN = 120  # seconds for scheduling and the pull of an image, before a Deployment counts as stuck
LARGEST = 1 << 20  # bytes of a Secret: an API server takes no more
PATHS = {
    "Deployment": ("apps/v1", "deployments"),
    "Secret": ("v1", "secrets"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
}


def require_size(settings: Settings, workload: Workload) -> None:
    """Rejected if one of its Secrets is larger than a cluster takes."""
    if workload.command is None or not workload.replicas:
        return
    for suffix, _, data in _secrets(settings, workload, workload.command):
        if (size := sum(len(value.encode()) for value in data.values())) <= LARGEST:
            continue
        if suffix != "source":
            raise Rejected(f"What this keeps secret is {readable(size)}, and a cluster takes {readable(LARGEST)}.")
        files = len((workload.command.fetch or {})["files"])
        raise Rejected(
            f"The list of the model's {files:,} files is {readable(size)}, and a cluster takes {readable(LARGEST)}"
            " of it. Name the folder that holds this model alone, or keep its files in fewer, larger ones."
        )


def companions(settings: Settings, workload: Workload, owner_uid: str = "") -> list[Object]:
    """What must be there before the pods: account, Secrets, network policy, disruption budget.

    `owner_uid` is the Deployment's, once there is one: the cluster then drops all of it with the Deployment.
    """
    command, name = _command(workload), labels.name_of(workload.owner, workload.revision)
    chosen = labels.labels(settings.installation, workload)
    found: list[Object] = [
        {**_head("ServiceAccount", settings, workload, name, owner_uid), "automountServiceAccountToken": False}
    ]
    for suffix, kind, data in _secrets(settings, workload, command):
        head = _head("Secret", settings, workload, f"{name}-{suffix}", owner_uid)
        found.append({**head, "type": kind, "data": {key: _base64(value) for key, value in data.items()}})
    found.append(
        {
            **_head("NetworkPolicy", settings, workload, name, owner_uid),
            "spec": {"podSelector": {"matchLabels": chosen}, **_traffic(settings, podspec.port_of(command))},
        }
    )
    found.append(
        {
            **_head("PodDisruptionBudget", settings, workload, name, owner_uid),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": chosen}},
        }
    )
    return found


def deployment(settings: Settings, workload: Workload) -> Object:
    """The revision's Deployment, without `replicas`: that field belongs to another manager, see `scale`."""
    command, name = _command(workload), labels.name_of(workload.owner, workload.revision)
    chosen = labels.labels(settings.installation, workload)
    patience = podspec.startup_seconds(command) + podspec.fetching_seconds(command) + MARGIN
    return {
        **_head("Deployment", settings, workload, name),
        "spec": {
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": patience,
            "selector": {"matchLabels": chosen},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": {**labels.COMMON, **chosen},
                    "annotations": {"kubectl.kubernetes.io/default-container": podspec.MAIN},
                },
                "spec": podspec.pod_spec(settings, workload, name),
            },
        },
    }


def scale(there: Object, replicas: int, *, paused: bool, unchanged: bool = False) -> Object:
    """How many there shall be of this very Deployment, never of a new one by its name, and whether an edit of its
    pods has to wait; with `unchanged` only if it hasn't changed since."""
    meta = {key: there["metadata"][key] for key in ("name", "uid")}
    if unchanged:
        meta["resourceVersion"] = there["metadata"]["resourceVersion"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {"replicas": replicas, "paused": paused},
    }


def source_file(settings: Settings, command: Command) -> Object:
    """What the fetching container is told; the credential lies in a file beside it."""
    return {
        "source": {**(command.fetch or {}), **({"hub": settings.hub} if settings.hub else {})},
        **({"credential_file": f"{podspec.FETCHER}/credential"} if command.credential else {}),
        **({"in_use": f"{podspec.IN_USE}/{podspec.LISTED}", "report": podspec.REPORT} if settings.cache else {}),
    }


def _secrets(settings: Settings, workload: Workload, command: Command) -> list[tuple[str, str, dict[str, str]]]:
    found = []
    if workload.secrets:
        found.append(("env", "Opaque", dict(workload.secrets)))
    if command.fetch:
        files = {"source.json": json.dumps(source_file(settings, command), sort_keys=True)}
        found.append(
            ("source", "Opaque", files | ({"credential": command.credential} if command.credential else {}))
        )
    if podspec.has_pull_secret(command) and command.image:
        image = command.image
        account = {"username": image.username, "password": image.password}
        account["auth"] = _base64(f"{image.username}:{image.password}")
        config = json.dumps({"auths": {registry_of(image.name): account}})
        found.append(("pull", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": config}))
    return found


def registry_of(image: str) -> str:
    """Whose credentials an image's name asks for."""
    first, slash, _ = image.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return first if named and first not in {"docker.io", "index.docker.io"} else DOCKER_HUB


def _traffic(settings: Settings, port: int) -> Object:
    """Nobody reaches an instance but those who may, and only its port. The kubelet's probes always may."""
    ports = [{"protocol": "TCP", "port": port}]
    peers = [_peer(one) for one in settings.ingress]
    rules: Object = {
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": ports, **({"from": peers} if peers else {})}],
    }
    if settings.egress is not None:
        dns = {"ports": [{"protocol": one, "port": 53} for one in ("UDP", "TCP")]}
        rules["policyTypes"] = ["Ingress", "Egress"]
        rules["egress"] = [dns, *({"to": [_peer(one)]} for one in settings.egress)]
    return rules


def _peer(who: str) -> Object:
    if is_network(who):
        return {"ipBlock": {"cidr": who}}
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": who}}}


def _head(kind: str, settings: Settings, workload: Workload, name: str, owner_uid: str = "") -> Object:
    meta: Object = {
        "name": name,
        "namespace": settings.namespace,
        "labels": {**labels.COMMON, **labels.labels(settings.installation, workload)},
    }
    if owner_uid:
        owner = labels.name_of(workload.owner, workload.revision)
        meta["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": owner, "uid": owner_uid}
        ]
    return {"apiVersion": PATHS[kind][0], "kind": kind, "metadata": meta}


def _command(workload: Workload) -> Command:
    if workload.command is None:
        raise Rejected("there is nothing to run: no command")
    return workload.command


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
