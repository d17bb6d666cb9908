"""The hosts of a region asked together: what there is, where there is room, and what it means that one is away."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from endpoints.runtimes.base import PartlyUnavailable, Unavailable
from endpoints.runtimes.docker.containers import Container, read
from endpoints.runtimes.docker.gpus import Room, room_of
from endpoints.runtimes.docker.hosts import Host, asking
from endpoints.runtimes.docker.record import Whereabouts

AWAY_SECONDS = 5.0
Where = tuple[Host, Container]


class Fleet:
    """Those of the installation of this name. `overcommit` says how many virtual cores a real one stands for."""

    def __init__(
        self, hosts: Sequence[Host], installation: str, overcommit: float, whereabouts: Whereabouts
    ) -> None:
        self.hosts = tuple(hosts)
        self.installation = installation
        self.overcommit = overcommit
        self.whereabouts = whereabouts
        self._away: dict[str, tuple[float, Unavailable]] = {}

    def everything(self, owner: str | None) -> list[Where]:
        """All that there is. Unavailable if a host is away that may hold some of it."""
        found, away = self.asked([f"tir.owner={owner}"] if owner else [])
        for host, problem in away:
            if self.whereabouts.may_hold(host.name, owner):
                raise PartlyUnavailable(str(problem)) if len(away) < len(self.hosts) else problem
        return found

    def named(self, name: str) -> Where | None:
        found, away = self.asked([f"tir.name={name}"])
        if not found and away:
            raise away[0][1]
        return found[0] if found else None

    def asked(self, labels: list[str]) -> tuple[list[Where], list[tuple[Host, Unavailable]]]:
        """What of ours has these labels, and the hosts that are away. Unavailable if all of them are."""
        found: list[Where] = []
        away: list[tuple[Host, Unavailable]] = []
        for host in self.hosts:
            try:
                mine = self._listed(host, [f"tir.installation={self.installation}", *labels])
                found += [(host, one) for one in mine]
            except Unavailable as problem:
                away.append((host, problem))
        if len(away) == len(self.hosts):
            raise away[0][1]
        return found, away

    def look_over(self, host: Host) -> None:
        """Write down whose instances lie there. With the lock of placement held."""
        mine = self._listed(host, [f"tir.installation={self.installation}"])
        self.whereabouts.replace(host.name, (one.labels.owner for one in mine))

    def rooms(self, away: list[str] | None = None) -> Iterator[Room]:
        """The room on each host that can be asked; what the others said goes to `away`."""
        problems: list[Unavailable] = []
        for host in self.hosts:
            try:
                there = self._listed(host, ["tir.installation"])
                with asking(host) as client:
                    yield room_of(host, client.info(), there, self.overcommit)
            except Unavailable as problem:
                problems.append(problem)
        if len(problems) == len(self.hosts):
            raise problems[0]
        if away is not None:
            away += [str(problem) for problem in problems]

    def _listed(self, host: Host, labels: list[str]) -> list[Container]:
        """The containers with these labels. A host that was silent isn't waited for again at once."""
        until, before = self._away.get(host.name, (0.0, None))
        if before and time.monotonic() < until:
            raise before
        try:
            with asking(host) as client:
                entries = client.containers(all=True, filters={"label": labels})
        except Unavailable as problem:
            if not host.local:
                self._away[host.name] = (time.monotonic() + AWAY_SECONDS, problem)
            raise
        found = (read(entry, host.address, host.network) for entry in entries)
        return [one for one in found if one is not None]
