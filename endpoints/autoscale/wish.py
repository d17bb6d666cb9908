"""How many instances one moment asks for, before pace, delay and steps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import ceil

from endpoints.autoscale.facts import Policy, Signal

SETTLING = timedelta(seconds=45)  # three slots of samples: until CPU shows what the last change did


@dataclass(frozen=True)
class Wish:
    instances: int
    why: str


def wish(signal: Signal, policy: Policy, load: float, steady: timedelta) -> Wish:
    """By requests, or by CPU and memory where that asks for more. `load`: mean requests over a window;
    `steady`: how long nothing has been starting and the same number was wanted."""
    by_load, by_use = ceil(load / policy.target) + policy.spare, _by_use(signal, policy, load, steady)
    why = f"{_requests(signal, load)} / target {policy.target}"
    why += f" + {policy.spare} spare" if policy.spare else ""
    if by_use > by_load:
        why = f"{_use(signal)} / threshold {policy.threshold} %, {_requests(signal, load)}"
    return Wish(policy.within(max(by_load, by_use)), why)


def _by_use(signal: Signal, policy: Policy, load: float, steady: timedelta) -> int:
    """One more than serve while they are hot, and never so few that the CPU of the rest would be.

    Never more than there are requests: one without a request would cool nothing, and an engine's memory is
    as full with little to do as with much. One at a time, each seen to serve before the next: until then the
    samples speak of the time before. And none where there is no room: heat is no shortage that the endpoint
    would have to report, as requests that nobody can take are.
    """
    if signal.hottest is None or signal.ready == 0:
        return 0
    if signal.hottest >= policy.threshold:
        settled = steady >= SETTLING and signal.starting == 0 and signal.room != 0
        needed = signal.ready + 1 if settled else signal.ready + signal.starting
    else:
        needed = ceil(signal.ready * (signal.cpu or 0) / policy.threshold)
    return min(needed, ceil(load))


def _requests(signal: Signal, load: float) -> str:
    queued = f" + {signal.queued} queued" if signal.queued else ""
    mean = "" if load == signal.load else f" ({load:.3g} on average)"
    return f"{signal.in_flight} in flight{queued}{mean}"


def _use(signal: Signal) -> str:
    said = [("CPU", signal.cpu), ("memory", signal.memory)]
    return " and ".join(f"{name} {value:.0f} %" for name, value in said if value is not None)
