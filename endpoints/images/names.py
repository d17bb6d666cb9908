"""An image's name as engines read it: which registry is asked, and for what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

HUB: Final = "docker.io"
HUB_SERVER: Final = "registry-1.docker.io"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::\d{{1,5}})?"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)(?P<tag>:\w[\w.-]{{0,127}})?"
    r"(?P<digest>@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
LONGEST: Final = 512


@dataclass(frozen=True)
class Name:
    """`tag` is "" where only a digest is given, "latest" where neither is. `host` is docker.io for Docker Hub."""

    host: str
    path: str
    tag: str
    digest: str

    @property
    def server(self) -> str:
        """Where its API answers."""
        return HUB_SERVER if self.host == HUB else self.host

    @property
    def registry(self) -> str:
        """For people."""
        return "Docker Hub" if self.host == HUB else self.host

    @property
    def reference(self) -> str:
        """What its manifest is asked for by."""
        return self.digest or self.tag

    @property
    def moving(self) -> bool:
        """Whether it says nothing of which image it is."""
        return not self.digest and self.tag == "latest"


def name_of(text: str) -> Name | None:
    """`[host[:port]/]path[:tag][@digest]`; None for what is no image's name.

    The first part is a host only if it looks like one: else it is a part of the path, at Docker Hub, whose own
    images lie in `library` (github.com/distribution/reference, normalize.go).
    """
    found = _NAME.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        return None
    host, path = found["host"] or "", found["path"]
    if host and not (set(".:[") & set(host) or host == "localhost" or host != host.lower()):
        host, path = "", f"{host}/{path}"
    if int(host.rpartition("]")[2].partition(":")[2] or 0) > 65535:
        return None
    if host in ("", HUB, f"index.{HUB}"):
        host, path = HUB, path if "/" in path else f"library/{path}"
    digest = (found["digest"] or "").removeprefix("@")
    return Name(host, path, (found["tag"] or "").removeprefix(":") or ("" if digest else "latest"), digest)


def pinned(text: str, digest: str) -> str:
    """The same name, with what it means now."""
    return f"{text.partition('@')[0]}@{digest}"
