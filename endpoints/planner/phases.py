"""The six phases of an unfinished deployment: what ends each, and what its end begins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from endpoints.models.deployment import MESSAGE_LEASE
from endpoints.models.event import Severity
from endpoints.planner import limits
from endpoints.planner.facts import (
    DeploymentFacts,
    DeploymentState,
    EndpointFacts,
    InstanceState,
    Note,
    PhaseFacts,
    PhaseKind,
    PhaseState,
    Plan,
    Queue,
)
from endpoints.planner.seen import World, sentence
from endpoints.spec import MODEL_SERVERS

SLOW = {
    PhaseKind.VALIDATION: "endpoints.validate",
    PhaseKind.BUILD: "endpoints.build",
    PhaseKind.LOADING: "endpoints.fetch",
}
Ended = tuple[datetime, str] | None  # when a phase ended and what to say of it; None: it goes on


class Advance:
    """One look at one deployment; `go` moves as many phases as the facts allow."""

    def __init__(
        self, facts: EndpointFacts, deployment: DeploymentFacts, world: World, at: datetime, plan: Plan
    ) -> None:
        self.facts, self.deployment, self.world, self.at, self.plan = facts, deployment, world, at, plan
        target = deployment.revision
        since = facts.restarting_since
        self.mine = [
            one
            for one in world.live
            if one.revision_id == target.id
            and one.state != InstanceState.DRAINING
            and (since is None or one.started_at >= since)
        ]
        self.failures = [one for one in world.failures if one.revision_id == target.id]
        self.failed = False
        self.done = False
        self.earlier_ended: datetime | None = None
        self.ends: dict[str, Callable[[datetime], Ended]] = {
            PhaseKind.VALIDATION: self.ends_validation,
            PhaseKind.BUILD: self.ends_build,
            PhaseKind.ALLOCATION: self.ends_allocation,
            PhaseKind.LOADING: self.ends_loading,
            PhaseKind.HEALTH: self.ends_health,
            PhaseKind.READY: self.ends_ready,
        }

    def go(self) -> None:
        for phase in self.deployment.phases:
            if phase.state == PhaseState.DONE:
                self.earlier_ended = phase.ended_at
            elif phase.state in (PhaseState.FAILED, PhaseState.CANCELLED):
                self.end(DeploymentState.FAILED)  # a slow worker closed it; the reason stands there already
                return
            elif not self.works_through(phase):
                return
        self.succeed()

    def works_through(self, phase: PhaseFacts) -> bool:
        """True once this phase is over and the next may begin at once."""
        started = phase.started_at or self.begin(phase)
        if self.out_of_budget(phase):
            return False
        ended = self.ends[phase.kind](started)
        if ended is None:
            if not self.out_of_time(phase, started):
                self.plan.look_again(self.at + limits.pace(self.at - started))
            return False
        when, message = max(ended[0], started), ended[1]
        self.change(phase, state=PhaseState.DONE, ended_at=when, message=message, reason="")
        self.note(phase, "phase.ended", f"{message} ({(when - started).total_seconds():.1f} s)", Severity.OK)
        self.earlier_ended = when
        return True

    # ── what ends each phase ──────────────────────────────────────────────────────────────────────
    def ends_validation(self, started: datetime) -> Ended:
        self.queue(PhaseKind.VALIDATION)
        return None  # the slow worker ends it

    def ends_build(self, started: datetime) -> Ended:
        if self.deployment.revision.builds:
            self.queue(PhaseKind.BUILD)
            return None  # the slow worker ends it
        return max(started, self.earlier_ended or started), "Pre-built container: nothing to build."

    def ends_allocation(self, started: datetime) -> Ended:
        room = self.facts.room
        if self.mine:
            return self.at, "An instance has its resources already."
        if room is None:
            return None
        if room.instances < 1:
            self.say(PhaseKind.ALLOCATION, room.shortage, "Unschedulable")
            return None
        target = self.deployment.revision
        gib = target.memory_bytes / 1024**3
        return self.at, f"{target.cpu_millis / 1000:g} vCPU and {gib:g} GiB of memory an instance."

    def ends_loading(self, started: datetime) -> Ended:
        if not self.deployment.revision.model_path:
            self.queue(PhaseKind.LOADING)
            return None
        healthy = [self.world.probes[one.name].healthy_at for one in self.mine if one.name in self.world.probes]
        times = [moment for moment in healthy if moment]
        times += [one.ready_at for one in self.mine if one.ready_at]
        loading = any(one.state == InstanceState.LOADING for one in self.mine)
        if self.deployment.revision.fetched_there and (times or loading):
            self.came(self.deployment.revision.model_bytes, self.deployment.revision.model_bytes)
        if times:
            ours = self.deployment.revision.ours
            return min(times), "The engine has loaded the model." if ours else "Its image says that it is healthy."
        held_up = [self.world.held_up[one.name] for one in self.mine if one.name in self.world.held_up]
        fetched = [self.world.fetched[one.name] for one in self.mine if one.name in self.world.fetched]
        if held_up:
            self.say(PhaseKind.LOADING, sentence(held_up[0].message), held_up[0].reason)
        elif fetched:
            self.say(PhaseKind.LOADING, "The model is brought to the instance.")
            self.came(*max(fetched))
        elif loading:
            said = next(iter(self.answers()), "")
            self.say(PhaseKind.LOADING, "The engine is loading the model." + (f" {said}" if said else ""))
        return None

    def came(self, done: int, total: int) -> None:
        """Write how much of the model is there, if that is not what stands there."""
        phase = self.deployment.phase(PhaseKind.LOADING)
        if total and phase.bytes_done != done:
            self.change(phase, bytes_done=done, bytes_total=total)

    def ends_health(self, started: datetime) -> Ended:
        ready = [one.ready_at for one in self.mine if one.ready_at]
        if ready:
            return min(ready), self.proof()
        if said := self.answers():
            self.say(PhaseKind.HEALTH, said[0], "ProbeFailed")
        return None

    def proof(self) -> str:
        """What an instance has shown before its first traffic, see `endpoints.probes`."""
        revision = self.deployment.revision
        if not revision.ours:
            return f"It answers 200 at {revision.health_path}. Nothing more is known of an image of one's own."
        if revision.engine in MODEL_SERVERS:
            return "It is healthy, and lists the model as loaded."
        return "It is healthy, lists the model, and answered a real request."

    def ends_ready(self, started: datetime) -> Ended:
        ready = [one for one in self.mine if one.state == InstanceState.READY]
        names = {one.name for one in self.mine}
        others = [one for one in self.world.live if one.name not in names and one.state != InstanceState.DRAINING]
        wanted, room = self.facts.wanted_now, self.facts.room
        count = f"{len(ready)} of {wanted} instances serve."
        if len(ready) >= wanted and not others:
            return self.at, count
        if room is None or room.instances >= 1 or len(self.mine) >= wanted:
            self.say(PhaseKind.READY, count)
            return None
        if ready and not others and self.at >= started + limits.SHORT_AFTER:
            return self.at, f"{count} {room.shortage}"  # the endpoint goes on saying what is short
        self.say(PhaseKind.READY, f"{count} {room.shortage}", "Unschedulable")
        return None

    def answers(self) -> list[str]:
        """What is wrong with those that were asked."""
        said = [self.world.probes[one.name].message for one in self.mine if one.name in self.world.probes]
        return [text for text in said if text]

    # ── deadlines, crashes, ends ──────────────────────────────────────────────────────────────────
    def begin(self, phase: PhaseFacts) -> datetime:
        """A phase begins when the one before it ended, which may be a little before this look."""
        revision, allowed = self.deployment.revision, PhaseKind(phase.kind).deadline
        began = self.earlier_ended or self.at
        if phase.kind == PhaseKind.LOADING:
            allowed = limits.loading_deadline(revision.model_bytes, revision.startup_seconds)
            if revision.model_path and revision.model_bytes and not revision.fetched_there:
                self.change(  # it was fetched before
                    phase, bytes_done=revision.model_bytes, bytes_total=revision.model_bytes
                )
        self.change(
            phase,
            state=PhaseState.RUNNING,
            started_at=began,
            deadline=began + allowed,
            message=PhaseKind(phase.kind).doing,
        )
        return began

    def out_of_budget(self, phase: PhaseFacts) -> bool:
        """Fail a deployment whose instances end again and again, or in a way that no new start mends."""
        ours = self.deployment.revision.ours
        never = [one for one in self.failures if ours and one.exit_code in limits.NEVER_MENDS]
        if never:
            self.fail(phase, limits.NEVER_MENDS[never[-1].exit_code or 0], never[-1].message)
        elif len(self.failures) >= limits.CRASHES_WHILE_DEPLOYING:
            self.fail(
                phase,
                "CrashLoop",
                f"{len(self.failures)} instances ended soon after their start. "
                f"The last: {self.failures[-1].message}",
            )
        return self.failed

    def out_of_time(self, phase: PhaseFacts, started: datetime) -> bool:
        """Fail a deployment whose phase is past its deadline, with what was last said of it."""
        if phase.deadline is None or self.at < phase.deadline:
            return False
        name = PhaseKind(phase.kind).label
        said = str(self.plan.phases.get(phase.kind, {}).get("message", phase.message))
        said = "" if said == PhaseKind(phase.kind).doing else said
        seconds = (phase.deadline - started).total_seconds()
        reason = f"{name.title().replace(' ', '')}Timeout"
        self.fail(phase, reason, f"{name} was not done within {seconds:.0f} s. {said}".strip())
        return True

    def fail(self, phase: PhaseFacts, reason: str, message: str) -> None:
        self.plan.actions.clear()
        self.change(phase, state=PhaseState.FAILED, ended_at=self.at, lease_until=None)
        self.change(phase, reason=reason, message=message)
        self.note(phase, "phase.failed", message, Severity.BAD, reason)
        self.end(DeploymentState.FAILED, reason, message)

    def end(self, state: str, reason: str = "", message: str = "") -> None:
        self.failed = state == DeploymentState.FAILED
        self.plan.deployment |= {"state": state, "ended_at": self.at, "reason": reason, "message": message}

    def succeed(self) -> None:
        self.done = True
        number = self.deployment.revision.number
        took = (self.at - self.deployment.started_at).total_seconds()
        self.end(DeploymentState.SUCCEEDED)
        self.plan.endpoint["serving_revision_id"] = self.deployment.revision.id
        said = f"Revision {number} serves, {took:.1f} s after it was asked for."
        self.plan.notes.append(Note("deployment.succeeded", said, Severity.OK))

    # ── small parts ───────────────────────────────────────────────────────────────────────────────
    def change(self, phase: PhaseFacts, **fields: object) -> None:
        self.plan.phases.setdefault(phase.kind, {}).update(fields)

    def note(self, phase: PhaseFacts, kind: str, message: str, severity: Severity, reason: str = "") -> None:
        name = PhaseKind(phase.kind).label
        self.plan.notes.append(Note(kind, f"{name}: {message}", severity, reason, after=phase.kind))

    def say(self, kind: str, message: str, reason: str = "") -> None:
        """Write what a phase is waiting for, if that is not what stands there."""
        phase = self.deployment.phase(kind)
        begun = self.plan.phases.get(kind, {})
        if begun or (phase.message, phase.reason) != (message, reason):
            self.plan.phases.setdefault(kind, {}).update(message=message, reason=reason)

    def queue(self, kind: PhaseKind) -> None:
        """Wake the slow worker unless it is at work or a message is on its way."""
        phase = self.deployment.phase(kind)
        if phase.lease_until and phase.lease_until > self.at:
            return
        self.plan.phases.setdefault(kind, {})["lease_until"] = self.at + MESSAGE_LEASE
        self.plan.actions.append(Queue(SLOW[kind], self.deployment.id))
