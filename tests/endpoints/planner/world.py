"""A small simulated world: applies plans to facts as the database would, and to instances as a runtime would,
while a clock of its own goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from endpoints.models.deployment import ENDED, DeploymentState, InstanceState, PhaseKind, PhaseState
from endpoints.planner import (
    Apply,
    DeploymentFacts,
    EndpointFacts,
    Failure,
    InstanceFacts,
    Note,
    PhaseFacts,
    Plan,
    Probe,
    Queue,
    RevisionFacts,
    Room,
    needs_room,
    plan,
)
from endpoints.runtimes.base import Observed, Phase

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWNER = "endpoint-1"


class World:
    """One endpoint, its revisions, and everything that runs for it. `slots`: how many instances fit."""

    def __init__(self, *, wanted: int = 1, slots: int = 100, fetched: bool = False) -> None:
        self.now = START
        self.slots = slots
        self.fetched = fetched
        self.revisions: dict[int, RevisionFacts] = {}
        self.deployments: dict[int, str] = {}
        self.reasons: dict[int, str] = {}
        self.runs: dict[str, Observed] = {}
        self.closed: dict[str, dict[str, object]] = {}
        self.healthy: set[str] = set()
        self.silent: set[str] = set()  # these never answer
        self.last_phases: tuple[PhaseFacts, ...] = ()  # of the deployment that ended last
        self.notes: list[Note] = []
        self.in_flight: dict[str, int] | None = {}
        self.slow_worker = True  # whether somebody takes its messages
        self.queued: list[str] = []
        self.starts = 0
        self.crash: tuple[int, str] | None = None  # every new instance ends at once like this
        self.load_seconds = 2.0
        self.fewest_ready = 99
        self.facts = EndpointFacts(
            id=1, owner=OWNER, alias="demo", desired="running", wanted=wanted, generation=1,
            observed_generation=0, status="deploying", wished_at=START,
        )  # fmt: skip

    # ── what people do ────────────────────────────────────────────────────────────────────────────
    def deploy(self, number: int = 1, *, restart: bool = False) -> None:
        if number not in self.revisions:
            path = "/models/tiny.gguf" if self.fetched else ""
            self.revisions[number] = RevisionFacts(number * 10, number, path, model_bytes=1000)
        phases = tuple(PhaseFacts(kind) for kind in PhaseKind.values)
        deployment = DeploymentFacts(len(self.deployments) + 1, self.revisions[number], self.now, phases)
        self.deployments[deployment.id] = DeploymentState.RUNNING
        self.wish(deployment=deployment, desired="running")
        if restart:
            self.facts = replace(self.facts, restarted_at=self.now)

    def wish(self, **columns: object) -> None:
        wished = {"generation": self.facts.generation + 1, "halted": False, "wished_at": self.now} | columns
        self.facts = replace(self.facts, failures=(), **wished)  # type: ignore[arg-type]

    def give_up(self, desired: str | None = None) -> None:
        if self.facts.deployment:
            self.deployments[self.facts.deployment.id] = DeploymentState.CANCELLED
        self.wish(deployment=None, **({"desired": desired} if desired else {}))

    # ── what happens ──────────────────────────────────────────────────────────────────────────────
    def kill(self, name: str, code: int | None = 137, message: str = "killed") -> None:
        self.runs[name] = replace(
            self.runs[name], phase=Phase.EXITED, exit_code=code, message=message, finished_at=self.now
        )

    def serve(self, instances: int, number: int = 1) -> None:
        """Bring it to Active by the ordinary way."""
        self.facts = replace(self.facts, wanted=instances)
        self.deploy(number)
        self.run(until="active")

    # ── time ──────────────────────────────────────────────────────────────────────────────────────
    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        for name, one in self.runs.items():
            if one.phase == Phase.STARTING:
                self.runs[name] = replace(one, phase=Phase.RUNNING, address=f"http://{name}")
            loaded = self.now >= one.started_at + timedelta(seconds=self.load_seconds)
            if one.phase == Phase.RUNNING and loaded and name not in self.silent:
                self.healthy.add(name)
        if self.slow_worker:
            for task in self.queued:
                self._work(task)
            self.queued.clear()

    def step(self, seconds: float = 0.5) -> Plan:
        """Let time pass, plan, check the invariants, and apply."""
        self.pass_time(seconds)
        planned = self.plan()
        self.apply(planned)
        return planned

    def run(self, *, until: str = "", seconds: float = 900, step: float = 0.5) -> None:
        """Step until the status is this one, or for so long."""
        ends = self.now + timedelta(seconds=seconds)
        while self.now < ends:
            self.step(step)
            if until and self.facts.status == until:
                return
        assert not until, f"{self.facts.status}, not {until}: {[note.message for note in self.notes[-5:]]}"

    def plan(self) -> Plan:
        facts = replace(self.facts, ended=frozenset(self.closed), in_flight=self.in_flight)
        facts = replace(facts, revision_numbers={one.number: one.id for one in self.revisions.values()})
        if needs_room(facts, self.runs):
            free = self.slots - sum(one.phase != Phase.EXITED for one in self.runs.values())
            facts = replace(facts, room=Room(free) if free > 0 else Room(0, "needs 2 vCPU, free is 0"))
        return plan(facts, self.runs, self.probes(), self.now)

    def probes(self) -> dict[str, Probe]:
        rows = {one.name: one for one in self.facts.instances}
        answers = {}
        for name, seen in self.runs.items():
            row = rows.get(name)
            if seen.phase != Phase.RUNNING or name in self.closed or (row and row.state == "draining"):
                continue
            if name in self.healthy:
                answers[name] = Probe(self.now, works=True, works_at=self.now)
            else:
                answers[name] = Probe(None, message=f"http://{name}/health: nothing listens there yet")
        return answers

    # ── what the database and the runtime do with a plan ─────────────────────────────────────────
    def apply(self, planned: Plan) -> None:
        self._rows(planned)
        self._deployment(planned)
        columns = dict(planned.endpoint)
        if "serving_revision_id" in columns:
            columns["serving"] = self._revision(columns.pop("serving_revision_id"))
        if "halted_at" in columns:
            columns["halted"] = True
        known = {name: value for name, value in columns.items() if hasattr(self.facts, name)}
        self.facts = replace(self.facts, **known)
        self.notes += planned.notes
        for action in planned.actions:
            if isinstance(action, Queue):
                self.queued.append(action.task)
            else:
                self._apply(action)
        if self.facts.status in ("active", "updating", "scaling"):
            ready = sum(one.state == InstanceState.READY for one in self.facts.instances)
            self.fewest_ready = min(self.fewest_ready, ready)

    def _revision(self, revision_id: object) -> RevisionFacts:
        return next(one for one in self.revisions.values() if one.id == revision_id)

    def _rows(self, planned: Plan) -> None:
        rows = {one.name: one for one in self.facts.instances}
        for name, fields in planned.new_instances.items():
            rows[name] = InstanceFacts(name, fields["revision_id"], fields["state"], fields["started_at"])
        for name, fields in planned.instances.items():
            known = {key: value for key, value in fields.items() if hasattr(rows[name], key)}
            rows[name] = replace(rows[name], **known)
            if fields.get("state") in ENDED:
                assert fields["ended_at"] >= rows[name].started_at
                self.closed[name] = fields
                one = rows.pop(name)
                if fields["state"] == InstanceState.FAILED:
                    failed = Failure(fields["ended_at"], one.revision_id, fields["exit_code"], fields["message"])
                    self.facts = replace(self.facts, failures=(*self.facts.failures, failed))
        horizon = self.now - timedelta(minutes=10)
        recent = tuple(one for one in self.facts.failures if one.at > horizon)
        self.facts = replace(self.facts, instances=tuple(rows.values()), failures=recent)

    def _deployment(self, planned: Plan) -> None:
        deployment = self.facts.deployment
        if deployment is None:
            assert not planned.phases
            assert not planned.deployment
            return
        self._phases({kind: dict(fields) for kind, fields in planned.phases.items()})
        if planned.deployment:
            self.deployments[deployment.id] = planned.deployment["state"]
            self.reasons[deployment.id] = planned.deployment["reason"]
            self.last_phases = self.facts.deployment.phases if self.facts.deployment else ()
            self.facts = replace(self.facts, deployment=None)

    def _phases(self, changes: dict[str, dict[str, object]]) -> None:
        deployment = self.facts.deployment
        assert deployment is not None
        phases = []
        for phase in deployment.phases:
            known = {k: v for k, v in changes.get(phase.kind, {}).items() if hasattr(phase, k)}
            phases.append(replace(phase, **known))  # type: ignore[arg-type]
        self.facts = replace(self.facts, deployment=replace(deployment, phases=tuple(phases)))

    def _work(self, task: str) -> None:
        """The slow worker."""
        deployment = self.facts.deployment
        if deployment is None:
            return
        if task == "endpoints.validate":
            self._phases({PhaseKind.VALIDATION: {"state": PhaseState.DONE, "ended_at": self.now, "message": "ok"}})
        else:
            revision = replace(deployment.revision, model_path="/models/tiny.gguf")
            self.revisions[revision.number] = revision
            self.facts = replace(self.facts, deployment=replace(deployment, revision=revision))

    def _apply(self, action: Apply) -> None:
        number = self._revision(action.revision_id).number
        for name in action.retire:
            if name in self.runs and self.runs[name].phase != Phase.EXITED:
                self.kill(name, 0, "stopped when asked")
        mine = [one for one in self.runs.values() if one.revision == number and one.phase != Phase.EXITED]
        assert len(mine) <= action.replicas, "the planner names whom to stop; the runtime must not choose"
        for _ in range(action.replicas - len(mine)):
            self.starts += 1
            name = f"{OWNER}-r{number}-{self.starts:03}"
            self.runs[name] = Observed(name, OWNER, number, Phase.STARTING, None, None, "", self.now, None)
            if self.crash:
                self.kill(name, *self.crash)

    # ── what tests ask ────────────────────────────────────────────────────────────────────────────
    def rows(self, state: str) -> list[str]:
        return [one.name for one in self.facts.instances if one.state == state]

    @property
    def running(self) -> list[str]:
        return [name for name, one in self.runs.items() if one.phase != Phase.EXITED]

    def kinds(self) -> list[str]:
        return [note.kind for note in self.notes]
