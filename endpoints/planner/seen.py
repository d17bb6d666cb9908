"""First half of a plan: what the world says about each instance."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from endpoints.models.event import Severity
from endpoints.planner import limits
from endpoints.planner.facts import EndpointFacts, Failure, InstanceFacts, InstanceState, Note, Plan, Probe
from endpoints.runtimes.base import Observed, Phase

BEFORE_READY = (InstanceState.STARTING, InstanceState.LOADING)


@dataclass(frozen=True)
class World:
    """Live instances as they are after this look, the failures, and what probes said of each."""

    live: tuple[InstanceFacts, ...]
    failures: tuple[Failure, ...]
    probes: Mapping[str, Probe]
    strays: Mapping[int, tuple[str, ...]]  # revision id -> what runs though its row is closed


def look(
    facts: EndpointFacts, observed: Mapping[str, Observed], probes: Mapping[str, Probe], at: datetime, plan: Plan
) -> World:
    """Merge what was observed into what is known, writing each transition into the plan."""
    live: list[InstanceFacts] = []
    failures = list(facts.failures)
    known = {one.name: one for one in facts.instances}
    strays: dict[int, tuple[str, ...]] = {}
    for name, seen in observed.items():
        revision_id = facts.revision_numbers.get(seen.revision)
        if name in known or revision_id is None:
            continue
        if name not in facts.ended:
            known[name] = _discovered(facts, revision_id, seen, plan)
        elif seen.phase != Phase.EXITED:
            strays[revision_id] = (*strays.get(revision_id, ()), name)
    for one in known.values():
        seen_now = observed.get(one.name)
        if seen_now is None or seen_now.phase == Phase.EXITED:
            failure = _ended(one, seen_now, facts, at, plan)
            failures += [failure] if failure else []
        else:
            live.append(_moved(one, seen_now, probes.get(one.name), at, plan))
    return World(tuple(live), tuple(failures), probes, strays)


def _discovered(facts: EndpointFacts, revision_id: int, seen: Observed, plan: Plan) -> InstanceFacts:
    """A row for what is there and not known yet, even if it came and went between two looks: that was a crash."""
    predecessors = sum(failure.revision_id == revision_id for failure in facts.failures)
    plan.new_instances[seen.name] = {
        "revision_id": revision_id,
        "started_at": seen.started_at,
        "restarts": predecessors,
        "state": InstanceState.STARTING,
    }
    plan.notes.append(
        Note("instance.started", f"Instance {seen.name} is starting.", instance=seen.name, after="starting")
    )
    return InstanceFacts(seen.name, revision_id, InstanceState.STARTING, seen.started_at)


def _ended(
    one: InstanceFacts, seen: Observed | None, facts: EndpointFacts, at: datetime, plan: Plan
) -> Failure | None:
    """Close the row: stopped if that was asked, else failed with the reason and the exit code."""
    when = (seen.finished_at if seen else None) or at
    code = seen.exit_code if seen else None
    change = plan.instances.setdefault(one.name, {})
    if one.draining_at is not None:
        change |= {"state": InstanceState.STOPPED, "ended_at": when, "exit_code": code, "reason": "Asked"}
        plan.notes.append(
            Note(
                "instance.stopped",
                f"Instance {one.name} stopped.",
                instance=one.name,
                before=one.state,
                after=InstanceState.STOPPED,
            )
        )
        return None
    reason, message = cause(seen)
    change |= {
        "state": InstanceState.FAILED,
        "ended_at": when,
        "exit_code": code,
        "reason": reason,
        "message": message,
    }
    plan.notes.append(
        Note(
            "instance.failed",
            f"Instance {one.name} ended unasked: {message}",
            Severity.BAD,
            reason,
            one.name,
            before=one.state,
            after=InstanceState.FAILED,
        )
    )
    return Failure(when, one.revision_id, code, one.ready_at is not None, message)


def cause(seen: Observed | None) -> tuple[str, str]:
    """A reason code and a sentence for an end that nobody asked for."""
    if seen is None:
        return "Vanished", "It is gone without a trace; somebody or something outside removed it."
    code = seen.exit_code
    if code is None:
        return "Lost", seen.message or "It ended and nothing says how."
    if code in limits.NEVER_MENDS:
        return limits.NEVER_MENDS[code], seen.message or f"Exit code {code}."
    if "memory" in seen.message.lower():
        return "OutOfMemory", seen.message
    if code > 128:
        number = code - 128
        known = number in set(signal.Signals)
        word = signal.Signals(number).name if known else f"signal {number}"
        return "Killed", f"Ended by {word} (exit code {code}). {seen.message}".strip()
    return "Exited", f"Exit code {code}. {seen.message}".strip()


def _moved(one: InstanceFacts, seen: Observed, probe: Probe | None, at: datetime, plan: Plan) -> InstanceFacts:
    """The instance after this look, with its row's changes."""
    after = one
    if seen.address and seen.address != one.address:
        after = replace(after, address=seen.address)
    if one.state == InstanceState.STARTING and seen.phase == Phase.RUNNING:
        after = replace(after, state=InstanceState.LOADING)
    if one.state != InstanceState.DRAINING and probe is not None:
        after = _probed(after, probe, at, plan)
    changed = {
        name: getattr(after, name)
        for name in ("address", "state", "ready_at", "probe_failures")
        if getattr(after, name) != getattr(one, name)
    }
    if changed:
        plan.instances.setdefault(one.name, {}).update(changed)
    return after


def _probed(one: InstanceFacts, probe: Probe, at: datetime, plan: Plan) -> InstanceFacts:
    if one.state in BEFORE_READY:
        if not probe.works:
            return one
        ready_at = probe.works_at or at
        took = (ready_at - one.started_at).total_seconds()
        plan.notes.append(
            Note(
                "instance.ready",
                f"Instance {one.name} answers, {took:.1f} s after its start.",
                Severity.OK,
                instance=one.name,
                before=one.state,
                after=InstanceState.READY,
            )
        )
        return replace(one, state=InstanceState.READY, ready_at=one.ready_at or ready_at, probe_failures=0)
    if probe.healthy_at:
        if one.state == InstanceState.UNREADY:
            plan.notes.append(
                Note(
                    "instance.ready",
                    f"Instance {one.name} answers again.",
                    Severity.OK,
                    instance=one.name,
                    before=one.state,
                    after=InstanceState.READY,
                )
            )
        return replace(one, state=InstanceState.READY, probe_failures=0)
    failures = min(one.probe_failures + 1, limits.UNREADY_AFTER)
    if failures >= limits.UNREADY_AFTER and one.state == InstanceState.READY:
        plan.notes.append(
            Note(
                "instance.unready",
                f"Instance {one.name} no longer answers: {probe.message}",
                Severity.WARN,
                "ProbeFailed",
                one.name,
                InstanceState.READY,
                InstanceState.UNREADY,
            )
        )
        return replace(one, state=InstanceState.UNREADY, probe_failures=failures)
    return replace(one, probe_failures=failures)
