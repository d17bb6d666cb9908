"""What a cluster holds and what of it is promised, from its nodes and the pods on them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from endpoints.capacity import DEFAULT_POOL, Capacity, Piece
from endpoints.runtimes.kubernetes import labels, reasons
from endpoints.runtimes.kubernetes.settings import Pool

Object = Mapping[str, Any]

SUFFIXES = {
    **{name: Decimal(1024) ** power for power, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("0.001"),
    "k": Decimal(1000),
    **{name: Decimal(1000) ** power for power, name in enumerate(("M", "G", "T", "P", "E"), 2)},
}
GIB = 1 << 30
UNKNOWN = 1 << 50  # of what nobody may count: more than is ever asked for
FORBIDDING = {"NoSchedule", "NoExecute"}


@dataclass(frozen=True)
class Amount:
    """CPU in thousandths of a core, memory in bytes, and GPUs."""

    cpu: int = 0
    memory: int = 0
    gpus: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.cpu + other.cpu, self.memory + other.memory, self.gpus + other.gpus)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            max(0, self.cpu - other.cpu), max(0, self.memory - other.memory), max(0, self.gpus - other.gpus)
        )

    def most(self, other: Amount) -> Amount:
        return Amount(max(self.cpu, other.cpu), max(self.memory, other.memory), max(self.gpus, other.gpus))

    def least(self, other: Amount) -> Amount:
        return Amount(min(self.cpu, other.cpu), min(self.memory, other.memory), min(self.gpus, other.gpus))

    def __str__(self) -> str:
        gpus = f" and {self.gpus} GPU{'s' * (self.gpus != 1)}" if self.gpus else ""
        return f"{self.cpu / 1000:g} vCPU, {self.memory / GIB:.4g} GiB{gpus}"


@dataclass(frozen=True)
class Node:
    """One that takes pods of ours: those of the instance types that these pools are for."""

    name: str
    has: Amount
    free: Amount
    pools: tuple[str, ...]


def quantity(text: object) -> Decimal:
    """ "500m", "16Gi", "1e3": in the unit itself. 0 for what is no quantity."""
    raw = str(text or "0")
    for suffix, factor in SUFFIXES.items():
        if raw.endswith(suffix):
            return _number(raw.removesuffix(suffix)) * factor
    return _number(raw)


def amount(resources: Mapping[str, Any], gpu: str) -> Amount:
    """What a list of resources means."""
    return Amount(
        int(quantity(resources.get("cpu")) * 1000),
        int(quantity(resources.get("memory"))),
        int(quantity(resources.get(gpu))),
    )


def promised(pod: Object, gpu: str) -> Amount:
    """What the scheduler set aside for a pod: all its containers, or its hungriest first step if that is more."""
    spec = pod["spec"]
    running, first = Amount(), Amount()
    for one in spec.get("initContainers") or ():
        wanted = _requests(one, gpu)
        if one.get("restartPolicy") == "Always":
            running += wanted
            first = first.most(running)
        else:
            first = first.most(running + wanted)
    for one in spec["containers"]:
        running += _requests(one, gpu)
    return running.most(first) + amount(spec.get("overhead") or {}, gpu)


def nodes(found: Sequence[Object], pods: Iterable[Object], pools: Mapping[str, Pool], gpu: str) -> list[Node]:
    """Those that take pods of ours, with what is free on each. `pools` are a region's."""
    used: dict[str, Amount] = {}
    for pod in pods:
        if where := pod["spec"].get("nodeName"):
            used[where] = used.get(where, Amount()) + promised(pod, gpu)
    every = {DEFAULT_POOL: Pool(), **pools}
    taking = []
    for one in found:
        if fit := tuple(slug for slug, pool in every.items() if _takes(one, pool)):
            name, has = one["metadata"]["name"], amount(one["status"].get("allocatable") or {}, gpu)
            taking.append(Node(name, has, has - used.get(name, Amount()), fit))
    return taking


def capacity(
    there: Sequence[Node], waiting: Amount, quota: Amount | None, extra: str, pools: Iterable[str] = ()
) -> Capacity:
    """All nodes together, less what waits for a place, and each; never more than a quota leaves."""
    has, free = Amount(), Amount()
    for one in there:
        has, free = has + one.has, free + one.free
    free -= waiting
    reason = f"{len(there)} node{'s' * (len(there) != 1)} take{'s' * (len(there) == 1)} instances"
    if there:
        reason += f"; the largest free piece is {largest(there)}"
    if quota is not None:
        free = free.least(quota)
        reason += f"; the namespace's quota leaves {_said(quota)}"
    return Capacity(
        has.cpu,
        min(free.cpu, has.cpu),
        has.memory,
        min(free.memory, has.memory),
        has.gpus,
        free.gpus,
        reason + extra,
        pieces=tuple(_piece(one) for one in there),
        pools=tuple(pools),
    )


def _said(quota: Amount) -> str:
    """What a quota leaves of what it speaks of."""
    parts = (
        (quota.cpu, f"{quota.cpu / 1000:g} vCPU"),
        (quota.memory, f"{quota.memory / GIB:.4g} GiB"),
        (quota.gpus, f"{quota.gpus} GPU{'s' * (quota.gpus != 1)}"),
    )
    return ", ".join(text for left, text in parts if left < UNKNOWN) or "as much as there is"


def _piece(node: Node) -> Piece:
    has, free = node.has, node.free
    return Piece(has.cpu, free.cpu, has.memory, free.memory, has.gpus, free.gpus, node.pools)


def unknown(why: str) -> Capacity:
    """Where nobody may look: the cluster decides by itself, so nothing is refused beforehand."""
    return Capacity(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, why, known=False)


def largest(there: Sequence[Node]) -> Amount:
    """The piece with most GPUs, then most of CPU and memory together: much of one is no use without the other."""
    return max((one.free for one in there), key=lambda free: (free.gpus, free.cpu * free.memory), default=Amount())


def shortage(pod: Object, there: Sequence[Node], gpu: str) -> str:
    """What a pod needs that no node has."""
    if not there:
        return "No node takes instances: each is full of taints, cordoned or not ready."
    return f"It needs {promised(pod, gpu)}; the largest that is free on one node is {largest(there)}."


def quota_left(quotas: Sequence[Object], gpu: str) -> Amount | None:
    """What the namespace's quotas leave; None where none speaks of these resources."""
    left: Amount | None = None
    for one in quotas:
        if one["spec"].get("scopes") or one["spec"].get("scopeSelector"):
            continue
        status = one.get("status") or {}
        hard, used = status.get("hard") or one["spec"].get("hard") or {}, status.get("used") or {}
        free = _left(hard, used, gpu)
        left = free if left is None else left.least(free)
    return left


def _left(hard: Mapping[str, Any], used: Mapping[str, Any], gpu: str) -> Amount:
    def of(names: tuple[str, ...], factor: int) -> int:
        found = [quantity(hard[name]) - quantity(used.get(name)) for name in names if name in hard]
        return max(0, int(min(found) * factor)) if found else UNKNOWN

    free = Amount(
        of(("cpu", "requests.cpu"), 1000),
        of(("memory", "requests.memory", "limits.memory"), 1),
        of((f"requests.{gpu}", f"limits.{gpu}"), 1),
    )
    pods = of(("pods", "count/pods"), 1)
    return free if pods else Amount()


def _requests(container: Object, gpu: str) -> Amount:
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    return amount({**limits, **requests}, gpu)


def _takes(node: Object, pool: Pool) -> bool:
    if node["spec"].get("unschedulable") or reasons.condition(node, "Ready").get("status") != "True":
        return False
    if any(labels.label(node, key) != value for key, value in pool.node_selector.items()):
        return False
    taints = [one for one in node["spec"].get("taints") or () if one.get("effect") in FORBIDDING]
    return all(any(_tolerates(one, taint) for one in pool.tolerations) for taint in taints)


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    key, operator = toleration.get("key", ""), toleration.get("operator", "Equal")
    if not key:
        return bool(operator == "Exists")
    same = toleration.get("value", "") == taint.get("value", "")
    return bool(key == taint["key"] and (operator == "Exists" or same))


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal(0)
