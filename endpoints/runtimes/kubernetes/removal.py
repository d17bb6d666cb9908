"""Which pods go, and whether the cluster would choose the same. Pure.

A ReplicaSet that has too many takes, in this order: pods without a node, pending before running, unready before
ready, then those of the least pod-deletion-cost, and only then the youngest (kubernetes,
pkg/controller/controller_utils.go, ActivePodsWithRanks.Less).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from endpoints.runtimes.kubernetes import labels, lives, reasons

Pod = Mapping[str, Any]
CHEAP = -1000  # the deletion cost of one that is to go; others have none, which counts as 0
DEAR = (
    1000  # of one that must outlive what the cluster makes between a deletion by name and the fall of the number
)
PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


@dataclass(frozen=True)
class Leaving:
    """The pods of one Deployment that are to go, and how many shall be there then. `by_name`: before the number
    falls, because the cluster would take others; `guarded` are those, where it is so."""

    pods: tuple[str, ...]
    replicas: int
    by_name: bool
    guarded: tuple[str, ...] = ()


def leaving(pods: Sequence[Pod], replicas: int, retire: Iterable[str]) -> Leaving:
    """Of one revision's pods those that are named, those that are down, and the newest of what is too many."""
    active = [pod for pod in pods if lives.is_active(pod)]
    asked = {name for name, life in map(lives.split, retire) for pod in active if _is(pod, name, life)}
    going = {_name(pod) for pod in active if _name(pod) in asked or lives.is_down(pod)}
    staying = sorted((pod for pod in active if _name(pod) not in going), key=_age)
    going |= {_name(pod) for pod in staying[replicas:]}
    by_name = len(active) > replicas and not _first(active, going)
    guarded = tuple(_name(pod) for pod in staying[:replicas]) if by_name else ()
    return Leaving(tuple(sorted(going)), replicas, by_name, guarded)


def _is(pod: Pod, name: str, life: int) -> bool:
    """Whether this instance is what the pod is now; an earlier life of it can't be asked to go."""
    return _name(pod) == name and life >= lives.life_of(pod)


def _first(active: Sequence[Pod], going: set[str]) -> bool:
    """Whether those that go, marked as cheap, come before all others in the cluster's eyes."""
    ranks_going = [_rank(pod, CHEAP) for pod in active if _name(pod) in going]
    ranks_staying = [_rank(pod, 0) for pod in active if _name(pod) not in going]
    return not ranks_going or not ranks_staying or max(ranks_going) < min(ranks_staying)


def _rank(pod: Pod, cost: int) -> tuple[bool, int, bool, int]:
    ready = reasons.condition(pod, "Ready").get("status") == "True"
    phase = PHASES.get((pod.get("status") or {}).get("phase", "Pending"), 0)
    written = labels.annotation(pod, labels.DELETION_COST)
    own = int(written) if written.lstrip("-").isdigit() else 0
    return bool(pod["spec"].get("nodeName")), phase, ready, min(cost, own) if cost else own


def _age(pod: Pod) -> tuple[str, str]:
    return str(pod["metadata"].get("creationTimestamp", "")), _name(pod)


def _name(pod: Pod) -> str:
    return str(pod["metadata"]["name"])
