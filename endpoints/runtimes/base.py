"""What the controller may ask of a place where instances run, and what each answer means.

A runtime holds no state of its own that matters: what it answers is read from the outside world, where each
thing carries its owner as a label. A second runtime object over the same place therefore sees and steers
exactly what the first one started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from endpoints.capacity import Capacity

MODEL_FOLDER = "/opt/model"  # where the model lies inside a container
SERVED_PORT = 8000  # of the pre-built containers
Report = Callable[[str], None]
"""`report(line)`: one line of what a slow step does, "" that it is still at work; what it raises ends the step
(cancelling)."""


class Rejected(Exception):
    """This can never work as asked. `str()` is one sentence that the user may read."""


class Unavailable(Exception):
    """The runtime could not be asked or could not act now: try later. Never read it as "nothing runs"."""


class Unprepared(Unavailable):
    """What `prepare` brings is here no more: nothing starts until it has been brought again."""


class PartlyUnavailable(Unavailable):
    """A part of the runtime could not be asked; about an owner that has nothing there it still answers."""


class Phase(StrEnum):
    """How far an instance is, as its runtime sees it.

    starting → running → exited, starting → exited. Running means that the process has an address; whether a
    model answers behind it is the controller's probe to find out.
    """

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True)
class Image:
    """What a container runs. An empty `command` is the image's own; the password is of its registry."""

    name: str
    command: tuple[str, ...] = ()
    port: int = SERVED_PORT
    health_path: str = "/health"
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Command:
    """What an instance runs; lengths are in tokens.

    `model` is where this machine has the model: a file, or a folder for engines that load one; "" if the image
    brings it, or if the runtime fetches it (`fetch`: the source's settings with the pinned revision and the files;
    its credential apart). `requirements` is the text of the model's own requirements.txt. `options` are the
    engine's settings by the names that `python -m serving` knows. `image` is None where no container is wanted.
    """

    engine: str
    model: str
    alias: str
    version: str = ""  # of the framework, such as "2.x"
    image: Image | None = None
    requirements: str = ""
    options: Mapping[str, str | int | float] = field(default_factory=dict)
    fetch: Mapping[str, Any] | None = None
    credential: str = field(default="", repr=False)
    startup_seconds: int = 600
    context_length: int = 2048
    parallel: int = 1
    kv_cache_type: str = "f16"
    context_shift: bool = False
    workers: int = 0  # connections it carries at once, besides probes; 0: as many as its sequences need
    log_level: str = "INFO"


@dataclass(frozen=True)
class Workload:
    """What should run for one revision of one owner.

    `replicas` counts instances of this revision only; other revisions of the owner are left alone, except for
    those named in `retire`. With `replicas=0` the command may be None. `cpu_millis` is in thousandths of a
    core. `secrets` reach the process as environment variables and nothing else: no argv, no file, no log.
    `machine` is the slug of the instance type, by which a cluster knows where such instances may run.
    """

    owner: str
    revision: int
    replicas: int
    command: Command | None = None
    retire: tuple[str, ...] = ()
    cpu_millis: int = 1000
    memory_bytes: int = 1 << 30
    gpus: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    machine: str = ""


@dataclass(frozen=True)
class Observed:
    """One instance as it is now.

    `exit_code` follows the shell: 128 + n for an end by signal n; None while it runs, and None after an end
    that nobody saw. `message` says in a few words why an instance ended, and is empty while it runs. `asked`:
    it ended because this runtime was told to end it, by whomever. `reason` is a code for what ended it or keeps
    it from running, such as OOMKilled, Unschedulable or ImagePullBackOff, where the runtime knows one; while it
    starts, `message` then says the same in words. `fetched`: the bytes of its model that are there and all of
    them, while the runtime brings it. `leaving`: it runs on for some seconds, but its end is under way, whoever
    wished it: us, or somebody who empties its node (then `reason` says so). It counts no more.
    """

    name: str
    owner: str
    revision: int
    phase: Phase
    address: str | None
    exit_code: int | None
    message: str
    started_at: datetime
    finished_at: datetime | None
    asked: bool = False
    reason: str = ""
    fetched: tuple[int, int] | None = None
    leaving: bool = False


@dataclass(frozen=True)
class Sampled:
    """What one instance uses now. None: not measured here. CPU is the mean since the previous call."""

    cpu_millis: int | None = None
    memory_bytes: int | None = None
    gpu_percent: float | None = None
    gpu_memory_bytes: int | None = None
    disk_bytes: int | None = None
    network_rx: int | None = None
    network_tx: int | None = None


@dataclass(frozen=True)
class LogLine:
    """One line that an instance wrote. `offset` numbers its lines 1, 2, 3…; a jump means lost lines."""

    at: datetime
    stream: str
    text: str
    offset: int


class Runtime(Protocol):
    """A place where instances run. Every verb may raise Unavailable; only `apply` and `prepare` Rejected."""

    fetches: bool
    """Whether it brings the model to its instances itself, so that this machine needn't have it."""

    def prepared(self, command: Command) -> bool:
        """Whether everything is there that `prepare` would bring. Quick."""

    def prepare(self, command: Command, report: Report) -> str:
        """Bring what must be there before an instance can start: an image, an environment. Slow.

        Idempotent; may be cut off anywhere and called again. Answers one sentence: what is there now.
        """

    def apply(self, workload: Workload) -> None:
        """Make `workload.replicas` instances of this revision run, and ask those in `retire` to stop.

        Before: nothing needs to exist. During: returns as soon as starts and stops are asked for; what was
        asked shows in `observe` at once, as starting, or as running until its end. After: asking the same
        again changes nothing. Instances on their way out don't count; missing ones are started under new
        names; surplus ones are stopped, newest first. Unknown names in `retire` are passed over. Two calls at
        once, even from two processes, end with `replicas` instances.
        """

    def observe(self, owner: str | None = None) -> dict[str, Observed]:
        """Everything of this installation (or of one owner) that runs, or has ended and is not forgotten.

        Before any `apply`: empty. During: one call, cheap enough for every sweep. After an end: phase exited,
        with code, message and time, until `forget`. A thing that vanished without a trace is simply not in
        the answer. An outage raises Unavailable; it never answers with fewer instances than there are.
        """

    def wait(self, owner: str, seen: Mapping[str, Observed], seconds: float) -> None:
        """Return once an instance of this owner has its address or its end, and `seen` doesn't know of it yet.

        A doorbell, not a fact: after `seconds` it returns in any case, during an outage too, and never raises.
        """

    def logs(self, name: str, after: int, limit: int) -> list[LogLine]:
        """At most `limit` lines with an offset above `after`, oldest first; the last -n lines for `after=-n`.

        Before the first line, and for a name that is not known: empty. While it runs and after its end: what
        is still kept. If older lines are gone, the answer starts at the oldest kept one.
        """

    def usage(self, owner: str | None = None) -> dict[str, Sampled]:
        """What each live instance uses. `cpu_millis` is None the first time an instance is asked about."""

    def capacity(self) -> Capacity:
        """What this place has and what is left, counting what live instances were promised."""

    def forget(self, name: str) -> None:
        """Drop what is left of an ended instance: record and logs. A live or unknown name is left alone."""
