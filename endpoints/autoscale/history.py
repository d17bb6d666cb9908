"""What was seen lately, small enough to be kept outside: losing it only begins the delay anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from endpoints.autoscale.facts import Decision, Policy, Signal
from endpoints.autoscale.wish import wish

GAP = timedelta(seconds=10)  # a longer silence breaks what is known of the time before
LONGEST_DELAY = timedelta(hours=1)

Loads = tuple[tuple[datetime, int], ...]
Wishes = tuple[tuple[datetime, int], ...]


@dataclass(frozen=True)
class History:
    """`since`: from here to `seen_at` every moment was seen; `whole_since`: and every gateway was heard;
    `idle_since`: and some instance was ready for requests that did not come, with nothing starting or being
    deployed. `steady_since`: since then nothing was starting and `wanted` was the same. `wishes` falls from one
    to the next: a wish is forgotten once a later one is at least as great, so the first within a delay is its
    greatest, and there are never more than there are numbers of instances."""

    seen_at: datetime
    since: datetime
    whole_since: datetime
    idle_since: datetime
    steady_since: datetime
    wanted: int
    changed_at: datetime
    loads: Loads = ()
    wishes: Wishes = ()

    @classmethod
    def begin(cls, signal: Signal, at: datetime) -> History:
        """Nothing is known of before, so what is wanted now counts as wished."""
        return cls(at, at, at, at, at, signal.wanted, at, ((at, signal.load),), ((at, signal.wanted),))

    def seen(self, signal: Signal, policy: Policy, at: datetime) -> History:
        """With this moment. A number that somebody else set begins a new history, with their wish in it, and so
        does a clock that was set back."""
        if signal.in_flight is None or timedelta(0) <= self.seen_at - at <= GAP:
            return self
        if abs(at - self.seen_at) > GAP or signal.wanted != self.wanted:
            return History.begin(signal, at)
        known = replace(
            self,
            seen_at=at,
            whole_since=self.whole_since if signal.whole else at,
            idle_since=self.idle_since if signal.is_idle else at,
            steady_since=at if signal.starting else self.steady_since,
            loads=(*(one for one in self.loads if one[0] > at - policy.window), (at, signal.load)),
        )
        wished = wish(signal, policy, known.load(policy, at), at - known.steady_since)
        left = [one for one in self.wishes if one[0] >= at - LONGEST_DELAY and one[1] > wished.instances]
        return replace(known, wishes=(*left, (at, wished.instances)))

    def applied(self, decision: Decision, at: datetime) -> History:
        """After the decision was written: the number changed, what was seen remains."""
        return replace(self, wanted=decision.wanted, changed_at=at, steady_since=at)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────
    def load(self, policy: Policy, at: datetime) -> float:
        """Mean requests over the panic window or over the calm one, whichever is greater."""
        return max(self._mean(at - policy.panic), self._mean(at - policy.window))

    def peak(self) -> int:
        """The most requests at one moment of the window."""
        return max((load for _, load in self.loads), default=0)

    def greatest_wish(self, since: datetime) -> int:
        return max((instances for at, instances in self.wishes if at >= since), default=self.wanted)

    def _mean(self, since: datetime) -> float:
        loads = [load for at, load in self.loads if at > since]
        return sum(loads) / len(loads) if loads else 0.0

    # ── outside ──────────────────────────────────────────────────────────────────────────────────
    def as_json(self) -> dict[str, Any]:
        times = {name: getattr(self, name).timestamp() for name in TIMES}
        return times | {
            "wanted": self.wanted,
            "loads": [[at.timestamp(), load] for at, load in self.loads],
            "wishes": [[at.timestamp(), instances] for at, instances in self.wishes],
        }

    @classmethod
    def from_json(cls, data: Any) -> History:
        """Raises KeyError, TypeError or ValueError for what isn't one."""
        return cls(
            **{name: _moment(data[name]) for name in TIMES},
            wanted=int(data["wanted"]),
            loads=tuple((_moment(at), int(load)) for at, load in data["loads"]),
            wishes=tuple((_moment(at), int(instances)) for at, instances in data["wishes"]),
        )


TIMES = ("seen_at", "since", "whole_since", "idle_since", "steady_since", "changed_at")


def _moment(seconds: Any) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)
