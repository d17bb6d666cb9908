"""What a region's settings say of its cluster."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
TEXTS = (
    "kubeconfig",
    "context",
    "namespace",
    "installation",
    "cache",
    "fetch_image",
    "gpu_resource",
    "runtime_class",
    "storage",
    "hub",
)
LISTS = ("ingress", "pull_secrets", "dcgm", "egress")


@dataclass(frozen=True)
class Pool:
    """Where instances of one size may run."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Settings:
    """A region of the kind `kubernetes`.

    `kubeconfig` is a path, "" for the account of the pod that we run in; `context` one of its contexts, "" for the
    present one. `installation` tells two consoles apart that share a namespace. `cache` names a claim
    (PersistentVolumeClaim) that keeps fetched models, "" for a folder of each pod; `storage` is that folder's
    largest size, such as "200Gi". `fetch_image` is the console's own image, which fetches models inside the
    cluster; `hub` the Hugging Face Hub that it
    asks, "" for the console's. `ingress` lists who may reach instances, and `egress` whom
    they may reach, as namespaces or networks; None for `egress` is anybody. `pull_secrets` are names of Secrets
    that are there already. `dcgm` lists the addresses of NVIDIA's exporters. `pools` goes by the slug of an
    instance type, "default" for the others. `private`: whether registries may be asked at private addresses.
    """

    kubeconfig: str = ""
    context: str = ""
    namespace: str = "default"
    installation: str = "tir"
    cache: str = ""
    storage: str = ""
    hub: str = ""
    fetch_image: str = "tir-console:latest"
    gpu_resource: str = "nvidia.com/gpu"
    runtime_class: str = ""
    ingress: tuple[str, ...] = ()
    egress: tuple[str, ...] | None = None
    pull_secrets: tuple[str, ...] = ()
    dcgm: tuple[str, ...] = ()
    pools: Mapping[str, Pool] = field(default_factory=dict)
    private: bool = True

    def pool(self, machine: str) -> Pool:
        """Where instances of this size run."""
        return self.pools.get(machine) or self.pools.get("default") or Pool()


def read(config: Mapping[str, Any]) -> Settings:
    """From a region's `config`. ValueError, in words, for what makes no sense."""
    known = {*TEXTS, *LISTS, "instance_types", "images", "console_url", "data_dir", "cpu_overcommit", "private"}
    if unknown := sorted(set(config) - known):
        raise ValueError(
            f"a Kubernetes region has no setting called {unknown[0]}; there are: {', '.join(sorted(known))}"
        )
    values: dict[str, Any] = {name: _text(config, name) for name in TEXTS if config.get(name)}
    values |= {name: _texts(config, name) for name in LISTS if config.get(name) is not None}
    values["pools"] = {slug: _pool(slug, one) for slug, one in dict(config.get("instance_types") or {}).items()}
    values["private"] = bool(config.get("private", True))
    values.setdefault("namespace", _own_namespace() or "default")
    if "ingress" not in values and (own := _own_namespace()):
        values["ingress"] = (own,)
    for name in ("namespace", "installation"):
        if name in values and not NAME.fullmatch(values[name]):
            raise ValueError(f"{name} {values[name]!r} is none: a-z, 0-9 and -, 63 at most")
    for one in (*values.get("ingress", ()), *(values.get("egress") or ())):
        if not is_network(one) and not NAME.fullmatch(one):
            raise ValueError(f"{one!r} is neither a namespace nor a network such as 10.0.0.0/8")
    return Settings(**values)


def is_network(text: str) -> bool:
    """Whether it is an address range rather than a namespace."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _text(config: Mapping[str, Any], name: str) -> str:
    if not isinstance(config[name], str):
        raise ValueError(f"{name} must be a text")  # noqa: TRY004  the caller shows it at the form's field
    return str(config[name])


def _texts(config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = config[name]
    if isinstance(value, str) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{name} must be a list of texts")
    return tuple(value)


def _pool(slug: str, value: Any) -> Pool:
    if not isinstance(value, Mapping) or set(value) - {"node_selector", "tolerations"}:
        raise ValueError(f"instance_types: {slug} takes node_selector and tolerations")
    return Pool(dict(value.get("node_selector") or {}), tuple(value.get("tolerations") or ()))


def _own_namespace() -> str:
    """The namespace of the pod that we run in; "" outside of a cluster."""
    try:
        return HERE.read_text("ascii").strip()
    except OSError:
        return ""
