"""What the planner is given and what it answers, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from endpoints.models.deployment import DeploymentState, InstanceState, PhaseKind, PhaseState
from endpoints.models.event import Severity
from endpoints.runtimes.base import MODEL_FOLDER
from endpoints.spec import Framework
from endpoints.status import Status


@dataclass(frozen=True)
class RevisionFacts:
    id: int
    number: int
    model_path: str = ""  # empty until fetched
    model_bytes: int = 0  # 0: not known yet
    cpu_millis: int = 1000
    memory_bytes: int = 1 << 30
    gpus: int = 0
    gpu: str = ""
    machine: str = ""  # the slug of its instance type
    engine: str = Framework.LLAMA_CPP
    builds: bool = False  # an image or an environment must be there before its first instance
    health_path: str = "/health"
    startup_seconds: int = 0  # allowed until it is healthy; 0: what its size needs

    @property
    def ours(self) -> bool:
        """Whether what runs inside is of ours, so that its exit codes and answers mean what `serving` says."""
        return self.engine != Framework.CUSTOM

    @property
    def fetched_there(self) -> bool:
        """Whether each instance's runtime brings the model to it, after its start."""
        return self.model_path.startswith(MODEL_FOLDER)


@dataclass(frozen=True)
class PhaseFacts:
    kind: str
    state: str = PhaseState.WAITING
    started_at: datetime | None = None
    deadline: datetime | None = None
    lease_until: datetime | None = None  # a slow worker's, or of the message that should wake one
    ended_at: datetime | None = None
    message: str = ""
    reason: str = ""
    bytes_done: int | None = None


@dataclass(frozen=True)
class DeploymentFacts:
    id: int
    revision: RevisionFacts
    started_at: datetime
    phases: tuple[PhaseFacts, ...]

    def phase(self, kind: str) -> PhaseFacts:
        return next(phase for phase in self.phases if phase.kind == kind)


@dataclass(frozen=True)
class InstanceFacts:
    name: str
    revision_id: int
    state: str
    started_at: datetime
    ready_at: datetime | None = None
    draining_at: datetime | None = None
    unready_at: datetime | None = None  # since when it has not answered
    probe_failures: int = 0
    address: str = ""


@dataclass(frozen=True)
class Failure:
    """An instance that ended unasked, within the crash window and since the last wish."""

    at: datetime
    revision_id: int
    exit_code: int | None
    message: str


@dataclass(frozen=True)
class Room:
    """How many more instances of the revision at hand the region holds; `shortage` says what is missing."""

    instances: int
    shortage: str = ""


@dataclass(frozen=True)
class Probe:
    """What an instance answered. `healthy_at`: when /health said 200. `works`: the one real call succeeded,
    None when it was not tried. `message` says what went wrong, with the address that was tried."""

    healthy_at: datetime | None
    works: bool | None = None
    works_at: datetime | None = None
    message: str = ""


@dataclass(frozen=True)
class EndpointFacts:
    id: int
    owner: str
    alias: str  # the name the engine must list
    desired: str
    wanted: int
    generation: int
    observed_generation: int
    status: str
    wished_at: datetime | None = None  # failures from before it don't count
    restarted_at: datetime | None = None
    serving: RevisionFacts | None = None
    deployment: DeploymentFacts | None = None  # the unfinished one
    halted: bool = False
    notice: str = ""
    instances: tuple[InstanceFacts, ...] = ()  # those that have not ended
    failures: tuple[Failure, ...] = ()
    in_flight: Mapping[str, int] | None = None  # None: not known now
    room: Room | None = None  # None: not asked for, see `needs_room`
    revision_numbers: Mapping[int, int] = field(default_factory=dict)  # number -> id, of those that may run
    revisions: Mapping[int, RevisionFacts] = field(default_factory=dict)  # by number: that serve, deploy or live
    ended: frozenset[str] = frozenset()  # of those observed, the names whose rows are closed

    @property
    def wanted_now(self) -> int:
        """Instances to run: a deployment proves itself with one even where none is wanted later."""
        return max(1, self.wanted) if self.deployment else self.wanted

    @property
    def restarting_since(self) -> datetime | None:
        """Instances older than this are to be replaced; None unless a restart is under way."""
        if self.deployment is None or self.restarted_at is None:
            return None
        return self.restarted_at if self.restarted_at >= self.deployment.started_at else None


# ── the answer ───────────────────────────────────────────────────────────────────────────────────
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Note:
    """An event to record."""

    kind: str
    message: str
    severity: str = Severity.INFO
    reason: str = ""
    instance: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Apply:
    """Make this many instances of a revision run, those in `retire` not counted."""

    revision_id: int
    replicas: int
    retire: tuple[str, ...] = ()


@dataclass(frozen=True)
class Queue:
    """Wake a slow worker: task `endpoints.validate`, `endpoints.build` or `endpoints.fetch`."""

    task: str
    deployment_id: int


Action = Apply | Queue


@dataclass
class Plan:
    """Changes to rows, actions on the world, and when to look again (None: the sweep's pace is enough)."""

    new_instances: dict[str, Fields] = field(default_factory=dict)
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    deployment: dict[str, Any] = field(default_factory=dict)
    endpoint: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    look_again_at: datetime | None = None

    @property
    def writes(self) -> bool:
        parts = (self.new_instances, self.instances, self.phases, self.deployment, self.endpoint, self.notes)
        return any(parts)

    @property
    def is_empty(self) -> bool:
        return not self.writes and not self.actions

    def look_again(self, at: datetime) -> None:
        if self.look_again_at is None or at < self.look_again_at:
            self.look_again_at = at


__all__ = [
    "Apply",
    "DeploymentFacts",
    "DeploymentState",
    "EndpointFacts",
    "Failure",
    "InstanceFacts",
    "InstanceState",
    "Note",
    "PhaseFacts",
    "PhaseKind",
    "PhaseState",
    "Plan",
    "Probe",
    "Queue",
    "RevisionFacts",
    "Room",
    "Status",
]
