"""What an image of a user's own must bring, as far as it can be told before it runs: a line a requirement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from endpoints.images.contents import Contents
from endpoints.sources.note import BAD, OK, WARN

OURS: Final = "65532"  # the user that instances run as
ROOT: Final = frozenset({"", "0", "root"})
WORDS: Final = {OK: "Good", WARN: "Look at this", BAD: "It can't run"}
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Asked:
    """What is wanted of it. `command`: whether one was given; `model` where it lies, "" if the image brings it;
    `user` who it will run as, "" for root; `architectures` of the machines it may run on, none if not known."""

    image: str
    port: int
    health_path: str
    startup_seconds: int
    command: bool = False
    model: str = ""
    user: str = ""
    architectures: Sequence[str] = ()


@dataclass(frozen=True)
class Line:
    """`level` is one of endpoints.sources.note's."""

    part: str
    level: str
    text: str

    @property
    def said(self) -> str:
        """The whole of it, for a log."""
        return f"{WORDS[self.level]}: {self.part}: {self.text}"


def report_of(found: Contents, asked: Asked) -> list[Line]:
    """Every requirement in turn."""
    return [
        _base(found, asked),
        _start(found, asked),
        _port(found, asked),
        _health(found, asked),
        _model(asked),
        _user(found, asked),
    ]


def wrong(lines: Iterable[Line]) -> str:
    """Why it can't run; "" if it can, or may."""
    return next((line.text for line in lines if line.level == BAD), "")


def summary(lines: Sequence[Line]) -> str:
    """How it stands, in one sentence."""
    look = sum(line.level != OK for line in lines)
    return (
        f"Its requirements: {len(lines) - look} good, {look} to look at." if look else "Its requirements are met."
    )


def runs_as(found: Contents, *, allow_root: bool) -> str:
    """The user that an engine starts it as: the one it names, unless that is root."""
    root = found.user.partition(":")[0] in ROOT
    return f"{OURS}:{OURS}" if root and not allow_root else found.user


def listed(names: Iterable[object]) -> str:
    """ "a, b and c"."""
    *most, last = [str(name) for name in names] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _base(found: Contents, asked: Asked) -> Line:
    if found.system.lower() != "linux":
        named = found.system or "no system that it names"
        return Line("base image", BAD, f"{asked.image} is made for {named}; it must be a Linux image")
    made, size = listed(found.architectures) or listed(asked.architectures), _size(found)
    strange = [one for one in asked.architectures if found.architectures and one not in found.architectures]
    if not strange:
        return Line("base image", OK, f"Linux for {made or 'a processor that it doesn’t name'}, {size}.")
    if len(strange) < len(asked.architectures):
        text = f"made for {made}; on the region's machines with {listed(strange)} it doesn't run."
    else:
        text = f"made for {made}, and the host is {listed(strange)}. It runs only if the host emulates that."
    return Line("base image", WARN, f"{text} {size[0].upper()}{size[1:]}.")


def _size(found: Contents) -> str:
    return f"{found.size / MIB:,.0f} MiB{' to pull' * found.packed}" if found.size >= MIB else "less than 1 MiB"


def _start(found: Contents, asked: Asked) -> Line:
    if asked.command:
        return Line("start", OK, f"the command that was given{' to its entrypoint' * found.entrypoint}.")
    if found.entrypoint or found.command:
        return Line("start", OK, "the image's own command.")
    return Line("start", BAD, f"{asked.image} says nothing to start: give a command, or put CMD into the image")


def _port(found: Contents, asked: Asked) -> Line:
    if asked.port in found.ports:
        return Line("port", OK, f"{asked.port} is exposed.")
    if found.ports:
        others = ", ".join(str(port) for port in found.ports)
        text = f"the image exposes {others}, and {asked.port} is called. Which one does it listen on?"
        return Line("port", WARN, text)
    return Line("port", WARN, f"the image exposes none. It must listen on {asked.port}, on all its addresses.")


def _health(found: Contents, asked: Asked) -> Line:
    text = (
        f"GET {asked.health_path} is asked on port {asked.port} until it answers 200, for "
        f"{asked.startup_seconds} s at most."
    )
    return Line("health check", OK, f"{text}{' Its own HEALTHCHECK is not used.' * found.health}")


def _model(asked: Asked) -> Line:
    if asked.model:
        return Line("model", OK, f"it lies at {asked.model}, as MODEL_PATH says, and can't be written.")
    return Line("model", OK, "the image brings it.")


def _user(found: Contents, asked: Asked) -> Line:
    named, runs = found.user or "root", asked.user or "root"
    if named.partition(":")[0] != runs.partition(":")[0]:
        runs = runs.partition(":")[0]
        return Line("user", WARN, f"the image's is {named}, so it runs as {runs}. It writes only to /tmp.")
    return Line("user", OK, f"it runs as {runs}, without further rights. It writes only to /tmp.")
