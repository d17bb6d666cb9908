"""What our objects are called, and the labels and annotations by which they are found again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from endpoints.runtimes.base import Rejected, Workload

OWNER, REVISION, INSTALLATION = "tir.owner", "tir.revision", "tir.installation"
RETIRED = "tir.console/retired"  # on a pod: it was told to go
FORGOTTEN = "tir.console/forgotten"  # on a pod: its lives up to this one are dropped
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
COMMON = {"app.kubernetes.io/name": "tir-instance", "app.kubernetes.io/managed-by": "tir-console"}
OWNERS = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
VARIABLES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FORBIDDEN = re.compile(r"TIR_|NVIDIA_VISIBLE_DEVICES$")  # the latter would show a pod the GPUs of others


def name_of(owner: str, revision: int) -> str:
    """Of the Deployment of a revision, and of all that goes with it."""
    return f"{owner}-r{revision}"


def deployment_of(instance: str) -> str:
    """The Deployment behind an instance's name, `<deployment>-<hash>-<letters>[.<life>]`."""
    return instance.partition(".")[0].rsplit("-", 2)[0]


def selector(installation: str, owner: str | None = None) -> str:
    """Of everything of an installation, or of one owner."""
    return f"{INSTALLATION}={installation}" + (f",{OWNER}={owner}" if owner else "")


def labels(installation: str, workload: Workload) -> dict[str, str]:
    """By which a revision's pods are found."""
    return {INSTALLATION: installation, OWNER: workload.owner, REVISION: str(workload.revision)}


def label(thing: Mapping[str, Any], name: str) -> str:
    """A label's value, "" where there is none."""
    return str(((thing.get("metadata") or {}).get("labels") or {}).get(name, ""))


def annotation(thing: Mapping[str, Any], name: str) -> str:
    """An annotation's value, "" where there is none."""
    return str(((thing.get("metadata") or {}).get("annotations") or {}).get(name, ""))


def check(workload: Workload) -> None:
    """Rejected, in words, for what no cluster can run."""
    if not OWNERS.fullmatch(workload.owner):
        raise Rejected(f"{workload.owner!r} can't own an instance: use a-z, 0-9 and -, 40 at most")
    if workload.replicas < 0:
        raise Rejected("the number of instances can't be below 0")
    if workload.replicas and workload.command is None:
        raise Rejected("there is nothing to run: no command")
    names = (*workload.env, *workload.secrets)
    if wrong := sorted({name for name in names if not VARIABLES.fullmatch(name) or FORBIDDEN.match(name)}):
        raise Rejected(f"these variables can't be set for an instance: {', '.join(wrong)}")
