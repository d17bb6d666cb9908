"""The decision: fast up, slow down, in bounded steps, and none where the signal doesn't carry it."""

from __future__ import annotations

from datetime import datetime
from math import ceil

from endpoints.autoscale.facts import Decision, Policy, Signal
from endpoints.autoscale.history import History
from endpoints.autoscale.wish import Wish, wish


def desired(signal: Signal, policy: Policy, history: History, at: datetime) -> Decision | None:
    """Another number of instances, or None to leave it. `history` has this moment in it already.

    Raises nothing; the same arguments give the same answer.
    """
    if signal.in_flight is None:
        return None
    allowed = policy.within(signal.wanted)
    if allowed > signal.wanted:
        return Decision(allowed, f"wanted {allowed}: the minimum is {policy.min}")
    if at - history.since < policy.panic or at - history.changed_at < policy.panic:
        return None
    wished = wish(signal, policy, history.load(policy, at), at - history.steady_since)
    if wished.instances > signal.wanted:
        return _up(signal, policy, wished.instances, wished.why)
    if wished.instances < signal.wanted and _may_go_down(signal, policy, history, at):
        return _down(signal, policy, history, at, wished)
    return None


def _up(signal: Signal, policy: Policy, wished: int, why: str) -> Decision:
    wanted = min(wished, signal.wanted + max(policy.step, signal.wanted))
    return Decision(wanted, f"wanted {wanted}{_towards(wanted, wished)}: {why}{_there(signal)}")


def _may_go_down(signal: Signal, policy: Policy, history: History, at: datetime) -> bool:
    """Only where nothing is on its way up, and every gateway was heard all through the delay."""
    if signal.deploying or signal.starting or not signal.whole:
        return False
    return at - history.whole_since >= policy.delay and at - history.changed_at >= policy.window


def _down(signal: Signal, policy: Policy, history: History, at: datetime, wished: Wish) -> Decision | None:
    carries = ceil(history.peak() / policy.target)  # not only on average
    enough = max(1, policy.within(max(history.greatest_wish(at - policy.delay), carries)))
    if at - history.idle_since >= policy.delay:
        enough = wished.instances  # the last one goes too, if it was there for the whole delay and nobody called
    # Who carries nothing may go at once; of those that work one at a time, the next when it has ended.
    step = min(max(1, signal.wanted // 2), max(signal.idle, 0 if signal.draining else 1))
    wanted = max(enough, signal.wanted - step)
    if wanted >= signal.wanted:
        return None
    seconds = policy.delay.total_seconds()
    if wanted == 0:
        return Decision(0, f"wanted 0: no request for {seconds:.0f} s; the next one wakes it")
    reason = f"{enough} sufficed for {seconds:.0f} s, now {wished.why}"
    return Decision(wanted, f"wanted {wanted}{_towards(wanted, enough)}: {reason}{_there(signal)}")


def _towards(wanted: int, goal: int) -> str:
    return "" if wanted == goal else f" on the way to {goal}"


def _there(signal: Signal) -> str:
    starting = f", {signal.starting} starting" if signal.starting else ""
    return f"; {signal.ready} ready{starting}"
