"""What pages say of an endpoint's scaling: what is wanted and why, what the policy may cost, what was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from endpoints.models import Endpoint
from endpoints.models.deployment import UNDER_WAY, InstanceState
from endpoints.models.scaled import HOLDS, POLICY, USUAL_HOLD
from endpoints.policy import policy_of
from endpoints.policy_form import PolicyForm
from endpoints.status import Desired
from endpoints.templatetags.formats import duration

DECISIONS = (
    "endpoint.scaled",
    "endpoint.autoscaled",
    "endpoint.scaling_updated",
    "endpoint.emergency",
    "endpoint.emergency_ended",
    "endpoint.woken",
)
MOST_DECISIONS = 50
UNITS = {"scale_up_threshold": " %", "scale_down_delay": " s"}
PARTS = {"scaling_now", "scaling_decisions", "policy"}  # fragments of the tab


@dataclass(frozen=True)
class Change:
    """From one policy to another: rows that differ, how many run with nothing to do, and how many at most."""

    rows: tuple[tuple[str, str, str], ...]
    least: tuple[int, int]
    most: tuple[int, int]

    @property
    def costlier(self) -> bool:
        return self.least[1] > self.least[0] or self.most[1] > self.most[0]

    @property
    def seen(self) -> str:
        """What a form sends along to say that its person saw what this change may cost."""
        return f"{self.least[1]}-{self.most[1]}"


def change_of(endpoint: Endpoint, asked: Mapping[str, int], at: datetime) -> Change:
    """`asked`: the columns that are to differ; what comes of it is valid. An emergency is no part of it."""
    before, after = copy(endpoint), copy(endpoint)
    before.emergency_until = after.emergency_until = None
    for name, value in asked.items():
        setattr(after, name, value)
    old, new = policy_of(before, at), policy_of(after, at)
    rows = [
        (label_of(name), f"{value}{UNITS.get(name, '')}", f"{asked[name]}{UNITS.get(name, '')}")
        for name, value in endpoint.policy.items()
        if asked.get(name, value) != value
    ]
    return Change(tuple(rows), (old.rest, new.rest), (old.max, new.max))


def label_of(name: str) -> str:
    return str(PolicyForm.base_fields[name].label)


@dataclass(frozen=True)
class Emergency:
    """One that holds now; `seconds` are left of it."""

    instances: int
    until: datetime
    seconds: int
    who: str


def emergency_of(endpoint: Endpoint, at: datetime) -> Emergency | None:
    held, until = endpoint.held(at), endpoint.emergency_until
    if not held or not until:
        return None
    begun = endpoint.events.filter(kind="endpoint.emergency").select_related("actor", "actor_key").first()
    return Emergency(held, until, int((until - at).total_seconds()) + 1, begun.who if begun else "")


def holds() -> list[tuple[int, str, bool]]:
    """How long an emergency may last: minutes, in words, and whether that is proposed."""
    return [(minutes, duration(minutes * 60), minutes == USUAL_HOLD) for minutes in HOLDS]


def mode_of(endpoint: Endpoint, at: datetime) -> str:
    """What moves the number of instances now."""
    low, high = endpoint.min_instances, endpoint.max_instances
    if endpoint.desired != Desired.RUNNING:
        return "The endpoint is stopped: nothing runs, and nothing is decided."
    if endpoint.halted_at:
        return "Too many instances failed: nothing more is started until somebody asks for it."
    if low == high:
        return f"Always {high}: min and max instances are equal, so the number never follows the load."
    if held := endpoint.held(at):
        kept = f"at least {held}, and up to {high} as the load asks" if held < high else f"all {high}"
        return f"An emergency keeps {kept}."
    if endpoint.wanted == 0:
        return "It sleeps: nothing runs and nothing is billed until the next request, which waits for a start."
    between = f"Between {low} and {high}, as the load asks"
    if endpoint.warm_spare:
        return f"{between}, with {endpoint.warm_spare} above what it needs."
    return between + (f"; without a request for {endpoint.scale_down_delay} s it sleeps." if low == 0 else ".")


def context_of(endpoint: Endpoint, at: datetime, form: PolicyForm | None = None, **more: Any) -> dict[str, Any]:
    """`form`: one that was posted; without it, the policy as it is."""
    states = Counter(endpoint.instances.live().values_list("state", flat=True))
    events = endpoint.events.filter(kind__in=DECISIONS).select_related("actor", "actor_key")
    decisions = list(events[:MOST_DECISIONS])
    policy = endpoint.policy
    return {
        "counts": [
            ("Wanted", endpoint.wanted if endpoint.desired == Desired.RUNNING else 0),
            ("Ready", states[InstanceState.READY]),
            ("Starting", sum(states[state] for state in UNDER_WAY)),
            ("Draining", states[InstanceState.DRAINING]),
        ],
        "mode": mode_of(endpoint, at),
        "decisions": decisions,
        "decided": next((event for event in decisions if event.before != event.after), None),
        "form": form or PolicyForm(initial=policy),
        "policy": [(label_of(name), f"{policy[name]}{UNITS.get(name, '')}") for name in POLICY],
        "present": policy.items(),
        "change": change_of(endpoint, {}, at),
    } | more
