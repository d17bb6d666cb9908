"""First half of a plan: what the world says about each instance."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from endpoints.models.event import Severity
from endpoints.planner import limits
from endpoints.planner.facts import EndpointFacts, Failure, InstanceFacts, InstanceState, Note, Plan, Probe
from endpoints.runtimes.base import Observed, Phase

# What an engine, or its place, says when it got no memory. What one said before somebody killed it is no reason.
LACKED = re.compile(
    r"needed more memory|out ?of ?memory|MemoryError|bad_alloc|(?:cannot|could not|failed to|unable to) allocate"
    r"|No available memory for the cache|larger than the available KV cache memory",
    re.IGNORECASE,
)
BY_SIGNAL = ("killed by signal 9", "killed by signal 15")
BEFORE_READY = (InstanceState.STARTING, InstanceState.LOADING)


@dataclass(frozen=True)
class World:
    """Live instances as they are after this look, the failures, and what probes said of each."""

    live: tuple[InstanceFacts, ...]
    failures: tuple[Failure, ...]
    probes: Mapping[str, Probe]
    strays: Mapping[int, tuple[str, ...]]  # revision id -> what runs though its row is closed
    held_up: Mapping[str, Observed]  # what keeps these from starting is known
    fetched: Mapping[str, tuple[int, int]]  # bytes of the model that came to these, and all
    leaving: frozenset[str] = frozenset()  # their end is under way: the runtime counts them no more


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
        else:
            moved = _moved(one, seen_now, probes.get(one.name), at, plan)
            failure = _given_up(moved, seen_now, facts, at, plan)
            if failure is None:
                live.append(moved)
            else:
                strays[one.revision_id] = (*strays.get(one.revision_id, ()), one.name)
        if failure and (facts.wished_at is None or failure.at > facts.wished_at):
            failures.append(failure)
    held_up = {name: seen for name, seen in observed.items() if seen.phase == Phase.STARTING and seen.reason}
    fetched = {name: seen.fetched for name, seen in observed.items() if seen.fetched}
    leaving = frozenset(name for name, seen in observed.items() if seen.leaving)
    return World(tuple(live), tuple(failures), probes, strays, held_up, fetched, leaving)


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
    when = max(one.started_at, (seen.finished_at if seen else None) or at)
    code = seen.exit_code if seen else None
    if one.draining_at is None and not (seen and seen.asked):  # `up --stop-all` asks without us, and is no crash
        revision = facts.revisions.get(seen.revision) if seen else None
        return _failed(one, when, code, *cause(seen, ours=revision is None or revision.ours), plan)
    change = plan.instances.setdefault(one.name, {})
    change |= {"state": InstanceState.STOPPED, "ended_at": when, "exit_code": code, "reason": "Asked"}
    said = f"Instance {one.name} stopped."
    plan.notes.append(
        Note("instance.stopped", said, instance=one.name, before=one.state, after=InstanceState.STOPPED)
    )
    return None


def _failed(
    one: InstanceFacts, when: datetime, code: int | None, reason: str, message: str, plan: Plan
) -> Failure:
    plan.instances.setdefault(one.name, {}).update(
        state=InstanceState.FAILED, ended_at=when, exit_code=code, reason=reason, message=message
    )
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
    return Failure(when, one.revision_id, code, message)


def _given_up(
    one: InstanceFacts, seen: Observed, facts: EndpointFacts, at: datetime, plan: Plan
) -> Failure | None:
    """Close the row of an instance that runs and serves nothing: its process ends as a stray, another starts."""
    if one.state == InstanceState.UNREADY and one.unready_at and at >= one.unready_at + limits.UNREADY_DEADLINE:
        seconds = (at - one.unready_at).total_seconds()
        return _failed(one, at, None, "Unresponsive", f"It has not answered for {seconds:.0f} s.", plan)
    if one.state in BEFORE_READY and facts.deployment is None:  # a deployment's phases have their own deadlines
        serving = facts.serving
        allowed = limits.start_deadline(*(serving.model_bytes, serving.startup_seconds) if serving else (0,))
        if at >= one.started_at + allowed:
            said = f"Not ready {allowed.total_seconds():.0f} s after its start. {sentence(seen.message)}".strip()
            return _failed(one, at, None, seen.reason or "StartTimeout", said, plan)
    return None


def cause(seen: Observed | None, *, ours: bool = True) -> tuple[str, str]:
    """A reason code and a sentence for an end that nobody asked for. `ours`: the exit codes are `serving`'s."""
    if seen is None:
        return "Vanished", "It is gone without a trace; somebody or something outside removed it."
    code = seen.exit_code
    if seen.reason:
        return seen.reason, sentence(seen.message)
    if code is None:
        return "Lost", seen.message or "It ended and nothing says how."
    if ours and code in limits.NEVER_MENDS:
        return limits.NEVER_MENDS[code], sentence(seen.message or f"exit code {code}")
    if LACKED.search(seen.message) and not seen.message.startswith(BY_SIGNAL):
        return "OutOfMemory", sentence(seen.message)
    if code > 128:
        number = code - 128
        known = number in set(signal.Signals)
        word = signal.Signals(number).name if known else f"signal {number}"
        said = seen.message.removeprefix(f"killed by signal {number}").removeprefix(": ")
        return "Killed", f"Ended by {word} (exit code {code}). {sentence(said)}".strip()
    return "Exited", sentence(seen.message or f"exit code {code}")


def sentence(text: str) -> str:
    """What a machine said, as one stands among others: a capital first, a full stop last."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…")) or not text else ".")


def _moved(one: InstanceFacts, seen: Observed, probe: Probe | None, at: datetime, plan: Plan) -> InstanceFacts:
    """The instance after this look, with its row's changes."""
    after = one
    if seen.address and seen.address != one.address:
        after = replace(after, address=seen.address)
    if one.state == InstanceState.STARTING and seen.phase == Phase.RUNNING:
        after = replace(after, state=InstanceState.LOADING)
    if one.state != InstanceState.DRAINING and seen.leaving:
        after = _sent_away(after, seen, at, plan)
    elif one.state != InstanceState.DRAINING and probe is not None:
        after = _probed(after, probe, at, plan)
    changed = {
        name: getattr(after, name)
        for name in ("address", "state", "ready_at", "draining_at", "unready_at", "probe_failures")
        if getattr(after, name) != getattr(one, name)
    }
    if changed:
        plan.instances.setdefault(one.name, {}).update(changed)
    return after


def _sent_away(one: InstanceFacts, seen: Observed, at: datetime, plan: Plan) -> InstanceFacts:
    """Somebody else ends it, as when a node is emptied: no crash, and some seconds to send nothing more."""
    said = f"Instance {one.name} is ended by its region and takes no new requests."
    note = _readiness("instance.draining", said, Severity.WARN, one, InstanceState.DRAINING)
    plan.notes.append(replace(note, reason=seen.reason))
    return replace(one, state=InstanceState.DRAINING, draining_at=at)


def _probed(one: InstanceFacts, probe: Probe, at: datetime, plan: Plan) -> InstanceFacts:
    if one.state in BEFORE_READY:
        if not probe.works:
            return one
        ready_at = probe.works_at or at
        took = (ready_at - one.started_at).total_seconds()
        said = f"Instance {one.name} answers, {took:.1f} s after its start."
        plan.notes.append(_readiness("instance.ready", said, Severity.OK, one, InstanceState.READY))
        return replace(one, state=InstanceState.READY, ready_at=one.ready_at or ready_at, probe_failures=0)
    if probe.healthy_at:
        if one.state == InstanceState.UNREADY:
            said = f"Instance {one.name} answers again."
            plan.notes.append(_readiness("instance.ready", said, Severity.OK, one, InstanceState.READY))
        return replace(one, state=InstanceState.READY, unready_at=None, probe_failures=0)
    failures = min(one.probe_failures + 1, limits.UNREADY_AFTER)
    if failures < limits.UNREADY_AFTER:
        plan.look_again(at + limits.CALM)  # ask once more soon, not at this instance's next turn
    elif one.state == InstanceState.READY:
        said = f"Instance {one.name} no longer answers: {probe.message}"
        note = _readiness("instance.unready", said, Severity.WARN, one, InstanceState.UNREADY)
        plan.notes.append(replace(note, reason="ProbeFailed"))
        return replace(one, state=InstanceState.UNREADY, unready_at=at, probe_failures=failures)
    return replace(one, probe_failures=failures)


def _readiness(kind: str, message: str, severity: Severity, one: InstanceFacts, after: str) -> Note:
    return Note(kind, message, severity, instance=one.name, before=one.state, after=after)
