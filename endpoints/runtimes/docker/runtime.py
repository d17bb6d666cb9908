"""Instances as containers of one or several Docker engines, found again by their labels."""

from __future__ import annotations

import base64
import fcntl
import math
import os
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from docker.errors import APIError

from endpoints.capacity import Capacity
from endpoints.images.contents import inspected
from endpoints.images.requirements import runs_as
from endpoints.runtimes import replicas
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
from endpoints.runtimes.docker import images, logs, networks, tidying, walls
from endpoints.runtimes.docker.containers import (
    CUSTOM,
    LEAVING,
    OURS,
    Container,
    Labels,
    Place,
    check,
    config,
    fate_of,
    observed,
)
from endpoints.runtimes.docker.fleet import Fleet, Where
from endpoints.runtimes.docker.gpus import Room, choose
from endpoints.runtimes.docker.hosts import Host, asking, hosts_in, let_read, words
from endpoints.runtimes.docker.logs import Anchors
from endpoints.runtimes.docker.record import Brought, Vouched, Whereabouts
from endpoints.runtimes.docker.usage import Meter
from endpoints.runtimes.docker.walls import Tried
from endpoints.runtimes.own_image import judged

LOOK_EVERY = 0.2


def region(config: Mapping[str, Any]) -> DockerRuntime:
    """The runtime of a region's settings: `hosts` (hosts.py), `allow_root`, `sealed`, and the `images` of engines.

    ValueError, in words, for what makes no sense.
    """
    known = {"hosts", "images", "allow_root", "sealed", "data_dir", "cpu_overcommit"}
    if unknown := set(config) - known:
        raise ValueError(f"a Docker region takes {', '.join(sorted(known))}; not {', '.join(sorted(unknown))}")
    data_dir = Path(config["data_dir"]).resolve()
    hosts = hosts_in(config.get("hosts") or ())
    sealed = bool(config.get("sealed", False))
    if sealed and (open_ones := [host.name for host in hosts if host.network or not host.local]):
        raise ValueError(
            f"only an engine of this machine, with a network of ours, can be sealed, not {open_ones[0]}"
        )
    return DockerRuntime(
        hosts,
        data_dir,
        installation_of(data_dir),
        cpu_overcommit=float(config.get("cpu_overcommit", 1.0)),
        allow_root=bool(config.get("allow_root", False)),
        sealed=sealed,
        prebuilt=tuple(dict(config.get("images") or {}).values()),
    )


def installation_of(data_dir: Path) -> str:
    """Whose containers ours are, as the data folder keeps it: two consoles at one engine never mix."""
    file = data_dir / "installation"
    if not file.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        draft = data_dir / f"installation.{uuid.uuid4().hex}"
        draft.write_text(uuid.uuid4().hex[:12], "ascii")
        with suppress(FileExistsError):  # another process was first: its name holds
            os.link(draft, file)
        draft.unlink()
    return file.read_text("ascii")


class DockerRuntime:
    """The Runtime of these hosts, for the region whose id `installation` is.

    `cpu_overcommit` says how many virtual cores a real one stands for. `grace` is the time from a stop to a kill.
    `allow_root`: an image of a user's own whose user is root runs as root (of its container) and not as 65532.
    `sealed`: instances reach no network. `prebuilt` are names of images that are trusted like our own.
    """

    fetches = False

    def __init__(
        self,
        hosts: Sequence[Host],
        data_dir: Path,
        installation: str,
        cpu_overcommit: float = 1.0,
        *,
        allow_root: bool = False,
        sealed: bool = False,
        prebuilt: Collection[str] = (),
        grace: float = 35.0,
    ) -> None:
        self.installation = installation
        self.overcommit = cpu_overcommit
        self.allow_root = allow_root
        self.sealed = sealed
        self.prebuilt = prebuilt
        self.grace = grace
        self.store = data_dir.resolve() / "models"
        self.locks = data_dir.resolve() / "locks"
        self.anchors = Anchors(data_dir.resolve() / "docker" / "logs")
        self.brought = Brought(data_dir.resolve() / "docker" / "images.json")
        self.vouched = Vouched(data_dir.resolve() / "docker" / "vouched.json")
        self.whereabouts = Whereabouts(data_dir.resolve() / "docker" / "whereabouts.json")
        self.tried = Tried(data_dir.resolve() / "docker" / "walls.json")
        self.fleet = Fleet(hosts, installation, cpu_overcommit, self.whereabouts)
        self.meter = Meter()
        self._ended: dict[str, Observed] = {}
        self._hidden: dict[str, tuple[str, ...]] = {}

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The engines."""
        return self.fleet.hosts

    def close(self) -> None:
        """Let go of the connections to the engines."""
        for host in self.hosts:
            host.close()

    # ── what must be there ──────────────────────────────────────────────────────────────────────
    def prepared(self, command: Command) -> bool:
        """See Runtime.prepared."""
        return command.image is None or all(images.found(host, command) for host in self.hosts)

    def prepare(self, command: Command, report: Report) -> str:
        """See Runtime.prepare: the image is brought to every host that can be asked, and the network made."""
        said, away = [], []
        for host in self.hosts:
            try:
                said.append(self._bring(host, command, report))
            except Unavailable as problem:
                away.append(str(problem))
        if not said:
            raise Unavailable("; ".join(away))
        return " ".join([*said, *away])

    def _bring(self, host: Host, command: Command, report: Report) -> str:
        with self._lock("-placement"):
            networks.join(host, self.installation, sealed=self.sealed)
        there = images.found(host, command)
        said = images.bring(host, command, report, self.vouched)
        now = images.found(host, command)
        for each in (command.image.name if command.image and not there else "", images.built(now)):
            if each:
                self.brought.note(host.name, each, time.time())
        return f"{said} {self._judged(host, command, now, report)}" if command.engine == CUSTOM else said

    def _judged(self, host: Host, command: Command, image: Mapping[str, Any] | None, report: Report) -> str:
        """What an image of a user's own brings of what it must, line by line. Rejected if it can't run."""
        if image is None or command.image is None:
            raise Unavailable(f"its image was taken off {host.name} meanwhile")
        with asking(host) as client:
            arch = str(client.version().get("Arch") or "")
        user = self._user(command, image)
        return judged(inspected(image), command, report, user=user, architectures=[arch] if arch else ())

    def tidy(self, keep: Collection[str], *, at: float) -> list[str]:
        """Take away what nothing needs; which images. `keep` names those that a revision may want again."""
        removed = []
        for host in self.hosts:
            removed += tidying.images(host, self.brought, keep, at)
            with self._lock("-placement"):
                used = networks.leave(host, self.installation)
                self.fleet.look_over(host)
            if (network := self._network(host)) in used:
                with self._lock("-walls"):
                    walls.look(host, self.installation, network, self.prebuilt, self.tried, at=at)
        self.anchors.keep({one.id for _, one in self.fleet.everything(None)})
        return removed

    # ── how many run ────────────────────────────────────────────────────────────────────────────
    def apply(self, workload: Workload) -> None:
        """See Runtime.apply."""
        check(workload)
        with self._lock(workload.owner):
            there = {one.labels.name: (host, one) for host, one in self.fleet.everything(workload.owner)}
            alive = {name: where for name, where in there.items() if self._alive(where)}
            mine = [
                replicas.Replica(name, one.labels.revision, one.started, leaving=one.left_at is not None)
                for name, (_, one) in alive.items()
            ]
            steps = replicas.steps(workload, mine)
            for name in steps.stop:
                self._stop(*alive[name])
            halfway = [where for name, where in alive.items() if where[1].state == "created"]
            for host, one in halfway:  # a console that was killed between two calls had made it only
                if one.labels.name not in steps.stop and one.left_at is None:
                    self._start(host, one.id)
            if steps.start and workload.command:
                self._start_new(steps.start, workload, workload.command)

    def _start_new(self, names: Sequence[str], workload: Workload, command: Command) -> None:
        made: list[tuple[Host, str]] = []
        try:
            with self._lock("-placement"):
                for host in self.hosts:
                    if not self.whereabouts.known(host.name):
                        self.fleet.look_over(host)
                for name in names:
                    made.append(self._create(name, workload, command))
        finally:
            with ThreadPoolExecutor(max_workers=4) as pool:
                list(pool.map(lambda each: self._start(*each), made))

    def _create(self, name: str, workload: Workload, command: Command) -> tuple[Host, str]:
        """Make a container where there is room; its host and id."""
        if command.image is None:
            raise Rejected("there is nothing to run: no image")
        rooms = list(self.fleet.rooms())
        having = {room.host.name: images.found(room.host, command) for room in rooms}
        rooms = [room for room in rooms if having[room.host.name]]
        if not rooms:
            raise Unprepared(f"No host has {command.image.name} any more")
        room = choose(rooms, workload)
        host, known = room.host, having[room.host.name] or {}
        self.whereabouts.add(host.name, workload.owner)
        labels = Labels(
            installation=self.installation,
            name=name,
            owner=workload.owner,
            revision=workload.revision,
            cpu_millis=workload.cpu_millis,
            memory_bytes=workload.memory_bytes,
            started_at=time.time(),
            port=command.image.port,
            gpus=room.gpus_free[: workload.gpus],
        )
        place = self._place(room, command, workload, known)
        with asking(host) as client:
            try:
                made = client.create_container_from_config(config(workload, command, labels, place), name)
            except APIError as error:
                if error.status_code == 400:
                    raise Rejected(f"Docker on {host.name} refuses this container: {words(error)}") from error
                raise
            return host, str(made["Id"])

    def _place(self, room: Room, command: Command, workload: Workload, known: Mapping[str, Any]) -> Place:
        host = room.host
        if command.model:
            let_read(command.model)
        network = networks.join(host, self.installation, sealed=self.sealed)
        return Place(
            image=known["Id"],
            user=self._user(command, known),
            threads=max(1, min(room.cores, math.floor(workload.cpu_millis / 1000 / self.overcommit))),
            cpu_millis=min(workload.cpu_millis, room.cores * 1000),
            publish=networks.published_at(host, network),
            network=network,
            mount=host.mount(command.model, self.store) if command.model else None,
        )

    def _user(self, command: Command, known: Mapping[str, Any]) -> str:
        """Who runs in it: of a user's own image the user it names, unless that is root."""
        if command.engine == CUSTOM:
            return runs_as(inspected(known), allow_root=self.allow_root)
        return f"{OURS}:{OURS}"

    def _network(self, host: Host) -> str:
        return networks.name_for(host, self.installation, sealed=self.sealed)

    def _start(self, host: Host, container: str) -> None:
        """Start it. What the engine can't do then, as without such a program in it, is the container's end."""
        with asking(host) as client:
            try:
                client.start(container)
            except APIError as error:
                if error.status_code == 404 and "no such container" in words(error).lower():
                    return
                if not client.inspect_container(container)["State"]["Error"]:
                    raise

    def _stop(self, host: Host, one: Container) -> None:
        """Ask it to stop; `_enforce` kills it after the grace. One that never ran is just taken away."""
        with asking(host) as client, _gone_already():
            if one.state == "created":
                client.remove_container(one.id, v=True, force=True)
                return
            if one.left_at is None:
                client.rename(one.id, f"{one.labels.name}{LEAVING}{time.time():.0f}")
            signal = client.inspect_container(one.id)["Config"].get("StopSignal") or "SIGTERM"
            client.kill(one.id, signal)

    def _alive(self, where: Where) -> bool:
        return self._fate(*where) is None

    # ── what there is ───────────────────────────────────────────────────────────────────────────
    def observe(self, owner: str | None = None) -> dict[str, Observed]:
        """See Runtime.observe. Also kills what didn't stop in time."""
        everything = self.fleet.everything(owner)
        if owner is None:
            ids = {one.id for _, one in everything}
            self._ended = {key: each for key, each in self._ended.items() if key in ids}
            self._hidden = {key: each for key, each in self._hidden.items() if key in ids}
        return {one.labels.name: self._observed(host, one) for host, one in everything}

    def _observed(self, host: Host, one: Container) -> Observed:
        if (ended := self._fate(host, one)) is not None:
            return ended
        if one.left_at is not None and time.time() > one.left_at + self.grace:
            with asking(host) as client, _gone_already():
                client.kill(one.id, "SIGKILL")
        return observed(one, None, "")

    def _fate(self, host: Host, one: Container) -> Observed | None:
        """How it ended, which never changes any more; None while it lives."""
        if one.id in self._ended:
            return self._ended[one.id]
        if not one.ended and one.state != "created":
            return None
        with asking(host) as client:
            try:
                inspected = client.inspect_container(one.id)
            except APIError as error:
                if error.status_code == 404:
                    return None
                raise
        found = fate_of(inspected, asked=one.left_at is not None)
        if found is None:
            return None
        fate, said = found
        said = said or logs.last_words(host, one.id, self._secrets(host, one))
        self._ended[one.id] = observed(one, fate, said)
        return self._ended[one.id]

    def wait(self, owner: str, seen: Mapping[str, Observed], seconds: float) -> None:
        """See Runtime.wait. Short looks: an engine's events would have to be caught up with after each outage."""
        known = {name for name, one in seen.items() if one.address or one.phase == Phase.EXITED}
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            with suppress(Unavailable):
                now = self.fleet.everything(owner)
                if any((one.address or one.ended) and one.labels.name not in known for _, one in now):
                    return
            time.sleep(min(LOOK_EVERY, left))

    def logs(self, name: str, after: int, limit: int) -> list[LogLine]:
        """See Runtime.logs."""
        found = self.fleet.named(name)
        if found is None:
            return []
        host, one = found
        return logs.lines(host, one.id, self.anchors, self._secrets(host, one), after, limit)

    def usage(self, owner: str | None = None) -> dict[str, Sampled]:
        """See Runtime.usage. Disk and network are totals since the start."""
        everything, _ = self.fleet.asked([f"tir.owner={owner}"] if owner else [])
        live = [(host, one) for host, one in everything if one.state == "running"]
        with ThreadPoolExecutor(max_workers=8) as pool:
            samples = list(pool.map(lambda where: self.meter.read(*where), live))
        return {one.labels.name: sample for (_, one), sample in zip(live, samples, strict=True) if sample}

    def capacity(self) -> Capacity:
        """See Runtime.capacity. What is free is what the emptiest host has: an instance can't lie on two."""
        away: list[str] = []
        rooms = list(self.fleet.rooms(away))
        said = "; ".join([*(room.explain() for room in rooms), *away])
        return Capacity(
            cpu_millis=sum(room.cpu_millis for room in rooms),
            cpu_millis_free=max(room.cpu_free for room in rooms),
            memory_bytes=sum(room.memory_bytes for room in rooms),
            memory_bytes_free=max(room.memory_free for room in rooms),
            gpus=sum(room.gpus for room in rooms),
            gpus_free=max(len(room.gpus_free) for room in rooms),
            reason=said,
            architectures=tuple(sorted({room.architecture for room in rooms} - {""})),
            walls="; ".join(self.tried.words(host, self._network(host)) for host in self.hosts),
        )

    def forget(self, name: str) -> None:
        """See Runtime.forget."""
        found = self.fleet.named(name)
        if found is None or self._fate(*found) is None:
            return
        host, one = found
        with asking(host) as client, _gone_already():
            client.remove_container(one.id, v=True)
        self.anchors.drop(one.id)
        self._ended.pop(one.id, None)

    # ── asking the engines ──────────────────────────────────────────────────────────────────────
    def _secrets(self, host: Host, one: Container) -> tuple[str, ...]:
        """What must not be shown of what it writes: its secrets' values, as they are and in base64."""
        if one.id not in self._hidden:
            with asking(host) as client:
                try:
                    given = client.inspect_container(one.id)["Config"]["Env"] or ()
                except APIError as error:
                    if error.status_code == 404:
                        return ()
                    raise
            variables = dict(each.split("=", 1) for each in given if "=" in each)
            names = variables.get("TIR_SECRETS", "").split(",")
            self._hidden[one.id] = _forms(variables.get(name, "") for name in names)
        return self._hidden[one.id]

    @contextmanager
    def _lock(self, owner: str) -> Iterator[None]:
        """One worker at a time for this owner, whichever process of this machine it is in."""
        self.locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.locks / f"docker-{self.installation}-{owner}").open("a", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


@contextmanager
def _gone_already() -> Iterator[None]:
    """What is away, or has ended meanwhile, needs nothing done to it."""
    try:
        yield
    except APIError as error:
        if error.status_code not in {404, 409}:
            raise


def _forms(values: Iterable[str]) -> tuple[str, ...]:
    found = set()
    for value in values:
        if len(value) >= 4:  # shorter ones would black out ordinary text
            plain = base64.b64encode(value.encode()).decode().rstrip("=")
            found |= {value, plain, plain.translate(str.maketrans("+/", "-_"))}
    return tuple(sorted(found, key=len, reverse=True))
