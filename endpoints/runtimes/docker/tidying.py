"""What is taken away again: images that we brought and nothing needs."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from docker.errors import APIError

from endpoints.runtimes.docker.hosts import Host, asking
from endpoints.runtimes.docker.record import Brought

KEPT_SECONDS = 7 * 86400.0
PRESSED = 0.85  # of the disk: then nothing unused is kept for later


def images(host: Host, brought: Brought, keep: Collection[str], at: float) -> list[str]:
    """Remove what we brought, no container uses and no revision names, if so for days or the disk is full."""
    with asking(host) as client:
        used = {one["ImageID"] for one in client.containers(all=True)}
        pressed = host.local and _full(Path(client.info()["DockerRootDir"]))
    removed = []
    for name, since in brought.of(host.name).items():
        with asking(host) as client:
            try:
                there = client.inspect_image(name)
                if name in keep or there["Id"] in used:
                    brought.note(host.name, name, at)
                elif pressed or at - since > KEPT_SECONDS:
                    client.remove_image(name)
                    removed.append(name)
                    brought.drop(host.name, name)
            except APIError as error:
                if error.status_code == 404:
                    brought.drop(host.name, name)
                elif error.status_code != 409:  # 409: somebody uses it since we looked
                    raise
    return removed


def _full(root: Path) -> bool:
    try:
        usage = shutil.disk_usage(root)
    except OSError:  # an engine that sees another file system than we do
        return False
    return usage.used / usage.total > PRESSED
