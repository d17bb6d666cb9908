"""What a check of a custom container's image saw in its registry, kept with the draft for its pages.

What was seen is kept, not what was said of it: another port or command is judged anew without asking the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.utils import timezone

from accounts.models import Project
from endpoints.images.door import Door
from endpoints.images.names import name_of, pinned
from endpoints.images.registry import Seen, look
from endpoints.images.requirements import OURS, Asked, Line, report_of, runs_as
from endpoints.models import Region
from endpoints.models.catalogue import RuntimeKind
from endpoints.origin import revealed
from endpoints.sources import SourceProblem
from endpoints.spec import ContainerSpec

NO_NAME: Final = "“{}” is no image's name. It has the form registry/name:tag@sha256:digest."
NEVER_STARTS: Final = ("no_container", "outdated")  # wherever else it may lie
ELSEWHERE: Final[Mapping[str, str]] = {
    RuntimeKind.DOCKER: "Only the registry was asked: an image that was built or loaded on the region's hosts "
    "is not seen from here, and starts all the same.",
    RuntimeKind.KUBERNETES: "Only the registry was asked, from here: a node that has the image, or a way of its "
    "own to it, starts it all the same.",
}


@dataclass(frozen=True)
class ImageLook:
    """`asked` is the image's name, and as whom it was asked for."""

    asked: Mapping[str, str]
    seen: Seen
    at: datetime

    @property
    def pinned(self) -> str:
        """Its name with what it means now."""
        return pinned(self.asked["image"], self.seen.digest)

    def of(self, container: ContainerSpec) -> bool:
        """Whether a check of this container would ask the same, or for the digest that was found."""
        names = {self.asked["image"], self.pinned}
        return container.image in names and {**_key(container), "image": ""} == {**self.asked, "image": ""}

    def to_dict(self) -> dict[str, Any]:
        return {"asked": dict(self.asked), "seen": self.seen.to_dict(), "at": self.at.isoformat()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ImageLook | None:
        """None where nothing is stored."""
        if not stored:
            return None
        return cls(stored["asked"], Seen.from_dict(stored["seen"]), datetime.fromisoformat(stored["at"]))


def see(container: ContainerSpec, project: Project, region: Region | None) -> ImageLook:
    """Ask the registry. SourceProblem says what is wrong, with the field to mend, and how much was looked at."""
    name = name_of(container.image)
    if name is None:
        raise SourceProblem("no_name", NO_NAME.format(container.image), "image")
    password = revealed(container.registry_secret, project, "registry_secret") if container.registry_secret else ""
    door = Door(name, container.registry_username, password, private=settings.SOURCES_ALLOW_PRIVATE)
    try:
        seen = look(door, _architectures(region))
    except SourceProblem as problem:
        more = "" if problem.code in NEVER_STARTS or region is None else ELSEWHERE.get(region.runtime, "")
        said = f"{problem.message} {more}".strip()
        raise SourceProblem(problem.code, said, problem.field, passing=problem.passing) from None
    return ImageLook(_key(container), seen, timezone.now())


def lines_of(found: ImageLook, container: ContainerSpec, region: Region | None, *, model: str) -> list[Line]:
    """What it brings of what it must in this region; `model` as Asked has it."""
    contents = found.seen.contents
    asked = Asked(
        container.image,
        container.port,
        container.health_path,
        container.startup_seconds,
        command=bool(container.command),
        model=model,
        user=_user(found, region),
        architectures=_architectures(region),
    )
    return report_of(contents, asked)


def _user(found: ImageLook, region: Region | None) -> str:
    """Who it runs as: on Kubernetes always the same, with Docker whom the image names unless that is root."""
    if region is not None and region.runtime == RuntimeKind.KUBERNETES:
        return OURS
    allow_root = bool(region and region.config.get("allow_root"))
    return runs_as(found.seen.contents, allow_root=allow_root)


def _architectures(region: Region | None) -> tuple[str, ...]:
    """As the region last said; none if it doesn't."""
    return tuple(region.capacity.get("architectures") or ()) if region else ()


def _key(container: ContainerSpec) -> dict[str, str]:
    names = ("image", "registry_username", "registry_secret")
    return {name: str(getattr(container, name)) for name in names}
