"""Instances as processes of this machine: one supervisor and one engine each, found again by their labels."""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from endpoints.capacity import Capacity
from endpoints.runtimes import limits, replicas, scan
from endpoints.runtimes.base import (
    Command,
    LogLine,
    Observed,
    Phase,
    Rejected,
    Report,
    Sampled,
    Unavailable,
    Unprepared,
    Workload,
)
from endpoints.runtimes.environments import Environments
from endpoints.runtimes.folder import Fate, Folder
from endpoints.runtimes.gauge import Gauge
from endpoints.runtimes.scan import Labels, Live
from endpoints.runtimes.serving import LLAMA_CPP, serving_config

CODE = Path(__file__).resolve().parents[2]  # where `python -m serving` is found
LISTEN_EVERY = 0.005  # seconds between two looks for a newborn's address
GOING_LOOKS = 200  # at most, for something that was killed to be gone
ENGINE = (sys.executable, "-m", "serving")
# What an engine may know of the worker's environment: never its database, its keys or its own settings.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,80}[a-z0-9])?")
# These would change the programs that we start as this user, not the model that they serve.
FORBIDDEN = re.compile(r"(TIR_|LD_|DYLD_|PYTHON).*|PATH|HOME|BASH_ENV|GCONV_PATH")


class ProcessRuntime:
    """The Runtime of one machine, for the installation that keeps its data in `data_dir`.

    `cpu_overcommit` says how many virtual cores a real one stands for. `engine` is the command line that
    runs an engine; `--config FILE --address-file FILE` is added. `grace` is the time from a stop to a kill.
    """

    def __init__(
        self,
        data_dir: Path,
        cpu_overcommit: float = 1.0,
        *,
        engine: Sequence[str] = ENGINE,
        grace: float = 35.0,
    ) -> None:
        if cpu_overcommit <= 0:
            raise ValueError(f"cpu_overcommit must be above 0, not {cpu_overcommit}")
        self.overcommit = cpu_overcommit
        self.engine = tuple(engine)
        self.grace = grace
        self.root = data_dir.resolve() / "instances"
        self.locks = data_dir.resolve() / "locks"
        self.cache = data_dir.resolve() / "cache"
        self.environments = Environments(data_dir.resolve() / "environments")
        self.data = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        self.gauge = Gauge()
        self._children: set[int] = set()
        try:
            for folder in (self.root, self.locks, self.cache):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"cannot use the data folder: {error}") from error

    @cached_property
    def limits(self) -> limits.Limits:
        """How instances are kept within their memory and CPU here."""
        return limits.detect(self.data)

    fetches = False

    def prepared(self, command: Command) -> bool:
        """See Runtime.prepared."""
        return command.engine == LLAMA_CPP or self.environments.python_of(command) is not None

    def prepare(self, command: Command, report: Report) -> str:
        """See Runtime.prepare: the packages of a model server, installed once for all that need the same."""
        if command.engine == LLAMA_CPP:
            return "Nothing to build: llama.cpp comes with the console."
        with _outage():
            return self.environments.build(command, report)

    def apply(self, workload: Workload) -> None:
        """See Runtime.apply."""
        _check(workload)
        with _outage(), self._lock(workload.owner):
            live = self._live()
            mine = [
                replicas.Replica(
                    name=name,
                    revision=one.labels.revision,
                    started_at=_time(one.labels.started_at),
                    leaving=self._folder(name).leaving() or self._folder(name).fate() is not None,
                )
                for name, one in live.items()
                if one.labels.owner == workload.owner
            ]
            steps = replicas.steps(workload, mine)
            for name in steps.stop:
                self._stop(live[name])
            for name in steps.start:
                self._start(name, workload)

    def observe(self, owner: str | None = None) -> dict[str, Observed]:
        """See Runtime.observe. Also ends what an engine or a killed supervisor left, and collects the ended."""
        with _outage():
            live = self._live()
            found = {}
            for name in {*os.listdir(self.root), *live}:
                try:
                    one = self._observed(name, live.get(name))
                except FileNotFoundError:  # somebody forgot it meanwhile
                    continue
                if one is not None and owner in {None, one.owner}:
                    found[name] = one
            return found

    def wait(self, owner: str, seen: Mapping[str, Observed], seconds: float) -> None:
        """See Runtime.wait. Looks at files only, which costs less than looking at processes."""
        known = {name for name, one in seen.items() if one.address or one.phase == Phase.EXITED}
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            with suppress(OSError):
                names = {name for name in os.listdir(self.root) if name.startswith(f"{owner}-r")}
                if any(self._folder(name).settled() for name in names - known):
                    return
            time.sleep(min(LISTEN_EVERY, left))

    def logs(self, name: str, after: int, limit: int) -> list[LogLine]:
        """See Runtime.logs."""
        with _outage():
            return self._folder(name).lines(after, limit)

    def usage(self, owner: str | None = None) -> dict[str, Sampled]:
        """See Runtime.usage. Network, disk and GPU are not measured for a process."""
        trees = {
            name: (*one.engines, *([one.supervisor] if one.supervisor else []))
            for name, one in self._held().items()
            if owner in {None, one.labels.owner}
        }
        return self.gauge.read(trees)

    def capacity(self) -> Capacity:
        """See Runtime.capacity. CPU is what the cores stand for under the overcommit."""
        held = [one.labels for one in self._held().values()]
        cpu = int(_cores() * 1000 * self.overcommit)
        memory = psutil.virtual_memory().total
        driver = Path("/proc/driver/nvidia/version").exists()
        gpus = "local processes use no GPU" if driver else "no NVIDIA driver on this machine"
        return Capacity(
            cpu_millis=cpu,
            cpu_millis_free=max(0, cpu - sum(labels.cpu_millis for labels in held)),
            memory_bytes=memory,
            memory_bytes_free=max(0, memory - sum(labels.memory_bytes for labels in held)),
            gpus=0,
            gpus_free=0,
            reason=f"{gpus}; {self.limits.explain()}",
        )

    def forget(self, name: str) -> None:
        """See Runtime.forget."""
        with _outage():
            if self._folder(name).fate() is not None and self._gone(name):
                self._folder(name).remove()
                self.limits.remove(name)

    def threads(self, cpu_millis: int) -> int:
        """Threads for an engine: the real cores behind its virtual ones.

        Never more: on two busy cores two spinning threads took ten times as long as one (measured).
        """
        return max(1, min(_cores(), math.floor(cpu_millis / 1000 / self.overcommit)))

    def _live(self) -> dict[str, Live]:
        self._reap()
        return scan.live(self.data)

    def _held(self) -> dict[str, Live]:
        """Those that still take room: a supervisor that has written down the end is only on its way out."""
        return {name: one for name, one in self._live().items() if self._folder(name).fate() is None}

    def _gone(self, name: str) -> bool:
        """End what is still on its way out after the end was written down; whether nothing lives any more."""
        for _ in range(GOING_LOOKS):
            left = self._live().get(name)
            if left is None:
                return True
            for pid in (*left.engines, *([left.supervisor] if left.supervisor else [])):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(LISTEN_EVERY)
        return False

    def _reap(self) -> None:
        """Collect ended supervisors that this process started, so that they don't stay as zombies."""
        for pid in tuple(self._children):
            try:
                ended = os.waitpid(pid, os.WNOHANG)[0]
            except ChildProcessError:  # a worker forked from us, or somebody collected it
                ended = pid
            if ended:
                self._children.discard(pid)

    def _folder(self, name: str) -> Folder:
        if not NAME.fullmatch(name):
            return Folder(self.root / "-")  # no such instance; never a path of the caller's choice
        return Folder(self.root / name)

    @contextmanager
    def _lock(self, owner: str, *, wait: bool = True) -> Iterator[bool]:
        """One worker at a time for this owner, whichever process it is in; yields whether we have it."""
        with open(self.locks / owner, "a", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _start(self, name: str, workload: Workload) -> None:
        engine = self._engine(workload)  # first: what can't be started leaves no trace
        labels = Labels(
            data=self.data,
            name=name,
            owner=workload.owner,
            revision=workload.revision,
            cpu_millis=workload.cpu_millis,
            memory_bytes=workload.memory_bytes,
            started_at=round(time.time(), 3),
        )
        folder = self._folder(name)
        folder.create(labels, self._config(workload))
        options = [f"cwd={CODE}", f"grace={self.grace}"]
        options += self.limits.create(name, workload.cpu_millis, workload.memory_bytes)
        supervisor = [sys.executable, "-I", "-S", str(CODE / "serving" / "supervise.py"), str(folder.path)]
        argv = [
            *engine,
            "--config",
            str(folder.config),
            "--address-file",
            str(folder.address_file),
        ]
        try:
            pid = _spawn([*supervisor, *options, "--", *argv], _environ(workload, labels))
        except OSError:
            folder.remove()
            self.limits.remove(name)
            raise
        self._children.add(pid)
        scan.await_labels(pid)  # with the lock in hand: what nobody sees would be taken for lost, or started again

    def _config(self, workload: Workload) -> dict[str, Any]:
        command = _command(workload)
        threads = self.threads(workload.cpu_millis)
        return serving_config(
            command, model=command.model, host="127.0.0.1", port=0, threads=threads, cache=str(self.cache)
        )

    def _engine(self, workload: Workload) -> Sequence[str]:
        """What runs it: this interpreter, or that of the environment that was built for it."""
        command = _command(workload)
        if command.engine == LLAMA_CPP:
            return self.engine
        python = self.environments.python_of(command)
        if python is None:
            raise Unprepared("The environment of this model is gone from this machine")
        return (str(python), *self.engine[1:])

    def _stop(self, one: Live) -> None:
        self._folder(one.labels.name).mark_leaving()
        for pid in (one.supervisor,) if one.supervisor else one.engines:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _observed(self, name: str, live: Live | None) -> Observed | None:
        """One instance, or None if there's neither a process nor a record."""
        folder = self._folder(name)
        if live is not None and folder.labels() is None:  # somebody forgot it since, or its record is lost
            live = self._live().get(name)
        labels = live.labels if live else folder.labels()
        if labels is None:
            return None
        fate = folder.fate()
        if live is not None and live.engines and (live.supervisor is None or fate is not None):
            scan.kill_orphans(self.data, name, ended=fate is not None)
        if fate is None and live is None:
            fate = self._lost(folder, labels)
        address = folder.address()
        phase = Phase.EXITED if fate else Phase.RUNNING if address else Phase.STARTING
        return Observed(
            name=name,
            owner=labels.owner,
            revision=labels.revision,
            phase=phase,
            address=address,
            exit_code=fate.exit_code if fate else None,
            message=fate.message(_last_words(folder)) if fate else "",
            started_at=_time(labels.started_at),
            finished_at=_time(fate.finished_at) if fate else None,
            asked=fate is not None and fate.asked,
        )

    def _lost(self, folder: Folder, labels: Labels) -> Fate | None:
        """Settle what has a record but neither a process nor an end; None if it's just being started.

        An `apply` holds the owner's lock from the record to the process, so with the lock in hand and after
        a fresh look the absence is real. After a reboot the end is the last thing it wrote, not now: nobody
        is billed for the time that the machine was off.
        """
        with self._lock(labels.owner, wait=False) as have:
            if not have or labels.name in scan.live(self.data):
                return None
            if (written := folder.fate()) is not None:
                return written
            rebooted = psutil.boot_time() > labels.started_at
            finished = folder.last_trace() if rebooted else time.time()
            fate = Fate(exit_code=None, asked=folder.leaving(), finished_at=finished)
            folder.settle(fate)
            return fate


def _check(workload: Workload) -> None:
    """Rejected for what can never run here."""
    if not NAME.fullmatch(workload.owner):
        raise Rejected(f"{workload.owner!r} can't own an instance: use a-z, 0-9 and -")
    if workload.replicas < 0:
        raise Rejected("the number of instances can't be below 0")
    if workload.replicas and _command(workload).image is not None:
        raise Rejected("a local process runs no container image: choose a region with Docker or Kubernetes")
    if workload.gpus:
        raise Rejected("local processes have no GPU")
    names = [*workload.env, *workload.secrets]
    if wrong := sorted({name for name in names if FORBIDDEN.fullmatch(name) or not name.isidentifier()}):
        raise Rejected(f"these variables can't be set for a local process: {', '.join(wrong)}")
    if any("\0" in value for value in (*workload.env.values(), *workload.secrets.values())):
        raise Rejected("the value of a variable can't contain a zero byte")


def _command(workload: Workload) -> Command:
    if workload.command is None:
        raise Rejected("there is nothing to run: no command")
    return workload.command


def _environ(workload: Workload, labels: Labels) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    hidden = {"TIR_SECRETS": ",".join(workload.secrets)}
    return {**kept, **workload.env, **workload.secrets, **hidden, **labels.environ()}


def _spawn(argv: list[str], environ: Mapping[str, str]) -> int:
    """Start a program in its own session, silent, with SIGTERM held until it can handle it; its pid."""
    silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    return os.posix_spawn(
        argv[0], argv, environ, file_actions=silent, setsid=True, setsigmask=[signal.SIGTERM], setsigdef=[]
    )


def _last_words(folder: Folder) -> str:
    lines = folder.lines(-5, 5)
    return next((line.text for line in reversed(lines) if line.text.strip()), "")[:500]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@contextmanager
def _outage() -> Iterator[None]:
    """What the system refuses now is an outage, never an answer."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"this machine can't do that now: {error}") from error
