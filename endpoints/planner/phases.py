"""The six phases of an unfinished deployment: what ends each, and what its end begins."""

from __future__ import annotations

from datetime import datetime

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
from endpoints.planner.seen import World

MESSAGES = {
    PhaseKind.VALIDATION: "Validating configuration…",
    PhaseKind.BUILD: "Building container…",
    PhaseKind.ALLOCATION: "Allocating resources…",
    PhaseKind.LOADING: "Loading model…",
    PhaseKind.HEALTH: "Running health checks…",
    PhaseKind.READY: "Bringing all instances into service…",
}
SLOW = {PhaseKind.VALIDATION: "endpoints.validate", PhaseKind.LOADING: "endpoints.fetch"}


class Advance:
    """One look at one deployment; `go` moves as many phases as the facts allow."""

    def __init__(
        self, facts: EndpointFacts, deployment: DeploymentFacts, world: World, at: datetime, plan: Plan
    ) -> None:
        self.facts, self.deployment, self.world, self.at, self.plan = facts, deployment, world, at, plan
        target = deployment.revision
        self.mine = [
            one
            for one in world.live
            if one.revision_id == target.id
            and one.state != InstanceState.DRAINING
            and (facts.restarted_at is None or one.started_at >= facts.restarted_at)
        ]
        self.failures = [one for one in world.failures if one.revision_id == target.id]
        self.failed = False
        self.done = False

    def go(self) -> None:
        for phase in self.deployment.phases:
            if phase.state == PhaseState.DONE:
                continue
            if phase.state in (PhaseState.FAILED, PhaseState.CANCELLED):
                self.fail_from_phase(phase)
                return
            if not self.works_through(phase):
                return
        self.succeed()

    def works_through(self, phase: PhaseFacts) -> bool:
        """True once this phase is over and the next may begin at once."""
        started = phase.started_at or self.begin(phase)
        if self.out_of_budget(phase):
            return False
        ended = getattr(self, f"ends_{phase.kind}")(started)
        if ended is None:
            self.wait(phase, started)
            return False
        when, message = ended
        self.change(phase, state=PhaseState.DONE, ended_at=max(when, started), message=message, reason="")
        return True

    # ── what ends each phase: (when, what to say), or None to wait ─────────────────────────────────
    def ends_validation(self, started: datetime) -> tuple[datetime, str] | None:
        self.queue(PhaseKind.VALIDATION)
        return None  # the slow worker ends it

    def ends_build(self, started: datetime) -> tuple[datetime, str] | None:
        return self.at, "Pre-built container: nothing to build."

    def ends_allocation(self, started: datetime) -> tuple[datetime, str] | None:
        room = self.facts.room
        if self.mine:
            return self.at, "An instance has its resources already."
        if room is None:
            self.say(
                PhaseKind.ALLOCATION, "The region does not say what is free; asking again.", "RegionUnavailable"
            )
            return None
        if room.instances < 1:
            self.say(PhaseKind.ALLOCATION, room.shortage, "Unschedulable")
            return None
        target = self.deployment.revision
        gib = target.memory_bytes / 1024**3
        return self.at, f"{target.cpu_millis / 1000:g} vCPU and {gib:g} GiB of memory an instance."

    def ends_loading(self, started: datetime) -> tuple[datetime, str] | None:
        if not self.deployment.revision.model_path:
            self.queue(PhaseKind.LOADING)
            return None
        healthy = [self.world.probes[one.name].healthy_at for one in self.mine if one.name in self.world.probes]
        times = [moment for moment in healthy if moment]
        times += [one.ready_at for one in self.mine if one.ready_at]
        if times:
            return min(times), "The engine has loaded the model."
        said = next(
            (self.world.probes[one.name].message for one in self.mine if one.name in self.world.probes), ""
        )
        if self.mine and any(one.state == InstanceState.LOADING for one in self.mine):
            self.say(PhaseKind.LOADING, "The engine is loading the model." + (f" {said}" if said else ""))
        return None

    def ends_health(self, started: datetime) -> tuple[datetime, str] | None:
        ready = [one.ready_at for one in self.mine if one.ready_at]
        if ready:
            return min(ready), "It is healthy, lists the model, and answered a real request."
        said = [self.world.probes[one.name].message for one in self.mine if one.name in self.world.probes]
        if any(said):
            self.say(PhaseKind.HEALTH, next(text for text in said if text), "ProbeFailed")
        return None

    def ends_ready(self, started: datetime) -> tuple[datetime, str] | None:
        ready = [one for one in self.mine if one.state == InstanceState.READY]
        names = {one.name for one in self.mine}
        others = [one for one in self.world.live if one.name not in names and one.state != InstanceState.DRAINING]
        wanted = max(1, self.facts.wanted)
        if len(ready) >= wanted and not others:
            return self.at, f"{len(ready)} of {wanted} instances serve."
        room = self.facts.room
        short = bool(room and room.instances < 1 and len(self.mine) < wanted)
        self.say(
            PhaseKind.READY,
            f"{len(ready)} of {wanted} instances serve." + (f" {room.shortage}" if short and room else ""),
            "Unschedulable" if short else "",
        )
        return None

    # ── deadlines, crashes, ends ──────────────────────────────────────────────────────────────────
    def begin(self, phase: PhaseFacts) -> datetime:
        allowed = limits.DEADLINES[PhaseKind(phase.kind)]
        if phase.kind == PhaseKind.LOADING:
            allowed = limits.loading_deadline(self.deployment.revision.model_bytes)
        # A phase begins when the one before it ended, which may be a little before this look.
        earlier = [change["ended_at"] for change in self.plan.phases.values() if "ended_at" in change]
        began = max(earlier, default=self.at)
        self.change(
            phase,
            state=PhaseState.RUNNING,
            started_at=began,
            deadline=began + allowed,
            message=MESSAGES[PhaseKind(phase.kind)],
        )
        return began

    def out_of_budget(self, phase: PhaseFacts) -> bool:
        never = [one for one in self.failures if one.exit_code in limits.NEVER_MENDS]
        if never:
            code = never[-1].exit_code
            self.fail(phase, limits.NEVER_MENDS[code or 0], never[-1].message)
        elif len(self.failures) >= limits.CRASHES_WHILE_DEPLOYING:
            self.fail(
                phase,
                "CrashLoop",
                f"{len(self.failures)} instances ended soon after their start. "
                f"The last: {self.failures[-1].message}",
            )
        elif phase.deadline and self.at >= phase.deadline:
            said = self.plan.phases.get(phase.kind, {}).get("message", "")
            seconds = (phase.deadline - (phase.started_at or self.at)).total_seconds()
            name = PhaseKind(phase.kind).label
            self.fail(
                phase,
                f"{name.title().replace(' ', '')}Timeout",
                f"{name} was not done within {seconds:.0f} s. {said}".strip(),
            )
        return self.failed

    def fail_from_phase(self, phase: PhaseFacts) -> None:
        """A slow worker closed the phase as failed; the reason stands there already."""
        self.end(DeploymentState.FAILED)

    def fail(self, phase: PhaseFacts, reason: str, message: str) -> None:
        self.change(phase, state=PhaseState.FAILED, ended_at=self.at, reason=reason, message=message)
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
        self.plan.notes.append(
            Note(
                "deployment.succeeded",
                f"Revision {number} serves, {took:.1f} s after it was asked for.",
                Severity.OK,
            )
        )

    # ── small parts ───────────────────────────────────────────────────────────────────────────────
    def change(self, phase: PhaseFacts, **fields: object) -> None:
        self.plan.phases.setdefault(phase.kind, {}).update(fields)

    def say(self, kind: str, message: str, reason: str = "") -> None:
        self.plan.phases.setdefault(kind, {}).update(message=message, reason=reason)

    def queue(self, kind: PhaseKind) -> None:
        """Wake the slow worker unless it is at work or a message is on its way."""
        phase = self.deployment.phase(kind)
        if phase.lease_until and phase.lease_until > self.at:
            return
        self.plan.phases.setdefault(kind, {})["lease_until"] = self.at + limits.MESSAGE_LEASE
        self.plan.actions.append(Queue(SLOW[kind], self.deployment.id))

    def wait(self, phase: PhaseFacts, started: datetime) -> None:
        pace = limits.CALM if phase.kind == PhaseKind.ALLOCATION else limits.BUSY
        self.plan.look_again(self.at + pace)
