"""What an image of a user's own must bring, as far as it can be told before it runs: a line a requirement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from endpoints.runtimes.base import MODEL_FOLDER, Command, Image, Rejected
from endpoints.runtimes.docker.containers import OURS

GOOD, LOOK = "Good", "Look at this"
MIB: Final = 1 << 20


def report_of(found: Mapping[str, Any], command: Command, image: Image, *, user: str, arch: str) -> list[str]:
    """`found` as the engine inspects it, `user` who it runs as, `arch` the host's. Rejected if it can't run."""
    config = found.get("Config") or {}
    return [
        _base(found, image, arch),
        _start(config, image),
        _port(config, image),
        f"{GOOD}: health check: GET {image.health_path} is asked on port {image.port} until it answers 200, for "
        f"{command.startup_seconds} s at most.",
        _model(command),
        _user(config, user),
    ]


def summary(lines: list[str]) -> str:
    """How it stands, in one sentence."""
    look = sum(line.startswith(LOOK) for line in lines)
    return (
        f"Its requirements: {len(lines) - look} good, {look} to look at." if look else "Its requirements are met."
    )


def _base(found: Mapping[str, Any], image: Image, arch: str) -> str:
    system, of = str(found.get("Os") or ""), str(found.get("Architecture") or "")
    if system.lower() != "linux":
        raise Rejected(f"{image.name} is made for {system or 'no system that it names'}; it must be a Linux image")
    if arch and of and of != arch:
        return (
            f"{LOOK}: base image: made for {of}, and the host is {arch}. It runs only if the host emulates that."
        )
    return f"{GOOD}: base image: Linux for {of or arch}, {int(found.get('Size') or 0) // MIB:,} MiB."


def _start(config: Mapping[str, Any], image: Image) -> str:
    if image.command:
        return f"{GOOD}: start: the command that was given{' to its entrypoint' * bool(config.get('Entrypoint'))}."
    if config.get("Entrypoint") or config.get("Cmd"):
        return f"{GOOD}: start: the image's own command."
    raise Rejected(f"{image.name} says nothing to start: give a command, or put CMD into the image")


def _port(config: Mapping[str, Any], image: Image) -> str:
    exposed = sorted(_ports(config.get("ExposedPorts") or {}))
    if image.port in exposed:
        return f"{GOOD}: port: {image.port} is exposed."
    if exposed:
        others = ", ".join(str(port) for port in exposed)
        return (
            f"{LOOK}: port: the image exposes {others}, and {image.port} is called. Which one does it listen on?"
        )
    return f"{LOOK}: port: the image exposes none. It must listen on {image.port}, on all its addresses."


def _ports(exposed: Mapping[str, Any]) -> Iterator[int]:
    for written in exposed:
        number, _, protocol = written.partition("/")
        if number.isdecimal() and protocol in ("", "tcp"):
            yield int(number)


def _model(command: Command) -> str:
    if command.model or command.fetch:
        return f"{GOOD}: model: it lies at {MODEL_FOLDER}, as MODEL_PATH says, and can't be written."
    return f"{GOOD}: model: the image brings it."


def _user(config: Mapping[str, Any], user: str) -> str:
    named = str(config.get("User") or "root")
    runs = user or "root"
    if runs.startswith(f"{OURS}:") and named.partition(":")[0] != str(OURS):
        return f"{LOOK}: user: the image's is {named}, so it runs as {OURS}. It writes only to /tmp."
    return f"{GOOD}: user: it runs as {runs}, without further rights. It writes only to /tmp."
