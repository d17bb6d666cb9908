"""The images that instances are made of: pulled, built upon, and taken away when nothing needs them any more."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from docker.errors import APIError
from docker.utils import parse_repository_tag

from endpoints.runtimes.base import Command, Image, Rejected, Report, Unavailable
from endpoints.runtimes.docker.containers import CUSTOM, OURS
from endpoints.runtimes.docker.hosts import Host, asking, words
from endpoints.runtimes.docker.listening import BROKEN, Begin, Event, heard
from endpoints.runtimes.docker.record import Vouched

REPORT_EVERY = 1.0  # seconds between two lines about a pull
BUILT = "tir-built"  # the repository of images with a model's own packages
OWN = "tir-serving-"
HINT = "Build it on the host from deploy/images, or name another one in the region's images"
MIB = 1 << 20
REFUSED = ("denied", "unauthorized", "authentication required", "no basic auth", "forbidden")
MISSING = ("not found", "manifest unknown", "no such image", "does not exist", "no matching manifest")
FULL = ("no space left", "disk quota")


def inspect(host: Host, name: str) -> dict[str, Any] | None:
    """What the host knows of this image; None if it isn't there."""
    with asking(host) as client:
        try:
            found: dict[str, Any] = client.inspect_image(name)
        except APIError as error:
            if error.status_code in {400, 404}:  # not there, or no name at all: a pull says which
                return None
            raise
        return found


def found(host: Host, command: Command) -> dict[str, Any] | None:
    """The image that instances of this run, if the host has it: the named one, or one built upon it."""
    base = inspect(host, _image(command).name)
    if base is None or (name := _name(base, command)) == _image(command).name:
        return base
    return inspect(host, name)


def built(image: Mapping[str, Any] | None) -> str:
    """The name of an image that was built upon another, "" for any other."""
    names = (image or {}).get("RepoTags") or ()
    return next((str(name) for name in names if name.startswith(f"{BUILT}:")), "")


def _name(base: Mapping[str, Any], command: Command) -> str:
    """What the image is called: as it was named, or by a digest of what is built upon it."""
    if command.engine == CUSTOM or not command.requirements.strip():
        return _image(command).name
    digest = hashlib.sha256(f"{base['Id']}\0{command.requirements}".encode()).hexdigest()
    return f"{BUILT}:{digest[:24]}"


def bring(host: Host, command: Command, report: Report, vouched: Vouched) -> str:
    """Have the image on this host; one sentence. Rejected if it can't be had as it is named."""
    said = _pull(host, command, report, vouched)
    base = inspect(host, _image(command).name)
    if base is None:
        raise Unavailable(f"{_image(command).name} was taken off {host.name} meanwhile")
    if found(host, command):
        return said
    _build(host, command, _name(base, command), report)
    return f"The model's packages are built into an image on {host.name}."


def _pull(host: Host, command: Command, report: Report, vouched: Vouched) -> str:
    """Ask the registry unless what is there is good: see `_ask_again`. One that is away stops nobody to whom it
    gave just this image before, by the same name and credential."""
    image = _image(command)
    there = inspect(host, image.name)
    if there and not _ask_again(there, command):
        return f"{image.name} is on {host.name}."
    report(f"Pulling {image.name} on {host.name}")
    try:
        _follow(host, _pulling(command), f"Pulling {image.name} on {host.name}", report, image)
    except Unavailable:
        if there and (command.engine != CUSTOM or vouched.knows(host.name, there["Id"], image)):
            return f"{image.name} is on {host.name}; whether the registry has a newer one can't be asked now."
        raise
    if command.engine == CUSTOM and (pulled := inspect(host, image.name)):
        vouched.note(host.name, pulled["Id"], image)
    return f"{image.name} pulled on {host.name}."


def _ask_again(there: Mapping[str, Any], command: Command) -> bool:
    """Whether the registry is asked about an image that is there.

    One that was built or loaded here is taken as it is. Of a pulled one, `latest` may have moved. A user's own is
    always asked for: that another project could pull it doesn't say that this one may run it.
    """
    if not there.get("RepoDigests"):
        return False
    return command.engine == CUSTOM or (parse_repository_tag(_image(command).name)[1] or "latest") == "latest"


def _pulling(command: Command) -> Begin:
    image = _image(command)
    repository, tag = parse_repository_tag(image.name)
    # Without a credential of its own, a user's image is asked for as nobody; ours as this console is logged in.
    nobody: dict[str, str] | None = {} if command.engine == CUSTOM else None
    auth = {"username": image.username, "password": image.password} if image.password else nobody
    how = {"tag": tag or "latest", "stream": True, "decode": True, "auth_config": auth}
    return lambda client: client.pull(repository, **how)


def _build(host: Host, command: Command, name: str, report: Report) -> None:
    """Put the model's packages on top of the image."""
    what = f"Building {name} on {host.name}"
    report(what)
    _follow(host, _building(command, name), what, report, _image(command))


def _building(command: Command, name: str) -> Begin:
    """As root, for the user that instances run as."""
    base = _image(command).name
    install = 'RUN ["python", "-m", "pip", "install", "--no-cache-dir", "-r", "/opt/requirements.txt"]'
    dockerfile = f"FROM {base}\nUSER 0\nCOPY requirements.txt /opt/requirements.txt\n{install}\nUSER {OURS}\n"
    context = _tar({"Dockerfile": dockerfile, "requirements.txt": command.requirements})
    how = {"custom_context": True, "tag": name, "rm": True, "forcerm": True, "decode": True}
    return lambda client: client.build(fileobj=context, **how)


def _follow(host: Host, begin: Begin, what: str, report: Report, image: Image) -> None:
    """Report a pull's bytes and a build's lines. What `report` raises ends it, and the engine's work with it."""
    try:
        with closing(heard(host.patient(), begin)) as events:
            _report(host, events, what, report, image)
    except APIError as error:
        raise _problem(host, image, words(error)) from error
    except BROKEN as error:
        raise Unavailable(f"Docker on {host.name} broke off ({what})") from error


def _report(host: Host, events: Iterable[Event], what: str, report: Report, image: Image) -> None:
    layers: dict[str, tuple[int, int]] = {}
    said = 0.0
    for event in events:
        if problem := event.get("error"):
            raise _problem(host, image, str(problem))
        line = str(event.get("stream") or "").strip()
        if line or not event:
            report(line)
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            layers[event["id"]] = (detail["current"], detail["total"])
        elif event.get("status") in {"Download complete", "Pull complete"} and event.get("id") in layers:
            layers[event["id"]] = (layers[event["id"]][1],) * 2
        if layers and time.monotonic() - said >= REPORT_EVERY:
            said = time.monotonic()
            report(f"{what}: {_progress(layers)}")


def _progress(layers: Mapping[str, tuple[int, int]]) -> str:
    done, total = (sum(each[part] for each in layers.values()) for part in (0, 1))
    return f"{done // MIB} of {total // MIB} MiB"


def _problem(host: Host, image: Image, said: str) -> Exception:
    """What a registry's or a build's refusal means. Never with the credential."""
    said = said.replace(image.password, "[secret]") if image.password else said
    if image.name.startswith(OWN):
        said += f". {HINT}"
    low = said.lower()
    if any(sign in low for sign in FULL):
        return Unavailable(f"The disk of {host.name} is full: {said}")
    if "invalid reference" in low:
        return Rejected(f"{image.name!r} is no name of an image: {said}")
    if "returned a non-zero code" in low:
        return Rejected(f"The image can't be built: {said}")
    if any(sign in low for sign in REFUSED):
        how = "with this user name and password" if image.password else "without a user name and password"
        return Rejected(f"The registry doesn't give {image.name} {how}, or has no such image: {said}")
    if any(sign in low for sign in MISSING):
        return Rejected(f"There is no image {image.name}: {said}")
    return Unavailable(f"The registry of {image.name} can't be asked from {host.name}: {said}")


def _image(command: Command) -> Image:
    if command.image is None:
        raise Rejected("there is nothing to run: no image")
    return command.image


def _tar(files: Mapping[str, str]) -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    made.seek(0)
    return made
