"""Small facts that no engine keeps, in a file that every process of this installation shares."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from endpoints.runtimes.base import Image


class Record:
    """A JSON object, read and written by one process at a time."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @contextmanager
    def open(self) -> Iterator[dict[str, Any]]:
        """The object, written back if it was changed. Empty if there is none, or if a full disk cut it."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.file.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            try:
                known: dict[str, Any] = json.loads(text or "{}")
            except ValueError:
                known = {}
            before = json.dumps(known)
            yield known
            if (changed := json.dumps(known)) != before:
                file.truncate(0)
                file.write(changed)


class Brought(Record):
    """Which images this installation brought to which host, and when each was last seen in use."""

    def note(self, host: str, image: str, at: float) -> None:
        """It is there because of us, and wanted now."""
        with self.open() as known:
            known.setdefault(host, {})[image] = at

    def of(self, host: str) -> dict[str, float]:
        with self.open() as known:
            return dict(known.get(host, {}))

    def drop(self, host: str, image: str) -> None:
        with self.open() as known:
            known.get(host, {}).pop(image, None)


class Vouched(Record):
    """Which images a registry gave to whom, so that those may start them while it is away. Of a credential only a
    digest is kept, with the name that was asked for."""

    MOST = 200  # a host

    def note(self, host: str, image_id: str, image: Image) -> None:
        with self.open() as known:
            given = known.setdefault(host, {})
            mark = _mark(image)
            given[image_id] = sorted({*given.pop(image_id, ()), mark})
            for oldest in list(given)[: -self.MOST]:
                del given[oldest]

    def knows(self, host: str, image_id: str, image: Image) -> bool:
        with self.open() as known:
            return _mark(image) in known.get(host, {}).get(image_id, ())


def _mark(image: Image) -> str:
    salt = image.name.encode()
    told = f"{image.username}\0{image.password}".encode()
    return hashlib.scrypt(told, salt=salt, n=1 << 12, r=8, p=1, dklen=16).hex()


class Whereabouts(Record):
    """Whose instances may lie on which host, so that a host that is away stops only what concerns it.

    An owner is written down before anything is made for it, and taken off by a look at the host while nothing is
    made. A host that was never looked at may hold anything.
    """

    def add(self, host: str, owner: str) -> None:
        with self.open() as known:
            known[host] = sorted({*known.get(host, ()), owner})

    def replace(self, host: str, owners: Iterable[str]) -> None:
        with self.open() as known:
            known[host] = sorted(set(owners))

    def known(self, host: str) -> bool:
        with self.open() as known:
            return host in known

    def may_hold(self, host: str, owner: str | None) -> bool:
        """Whether something of this owner, or of anybody, can be there."""
        with self.open() as known:
            if host not in known:
                return True
            return owner in known[host] if owner else bool(known[host])
