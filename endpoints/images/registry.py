"""What a registry says of an image now, by its HTTP API (OCI's distribution specification, Docker's before it)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from endpoints.images import problems
from endpoints.images.contents import Contents, contents_of, plain
from endpoints.images.door import Answer, Door

_OCI, _DOCKER = "application/vnd.oci.image", "application/vnd.docker.distribution.manifest"
ACCEPT: Final = ", ".join(
    (f"{_OCI}.index.v1+json", f"{_DOCKER}.list.v2+json", f"{_OCI}.manifest.v1+json", f"{_DOCKER}.v2+json")
)
CONFIGS: Final = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
ASKED_TAGS: Final = 50
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """`digest` is what the name means now, of all its platforms together; `contents` of the one that was read."""

    digest: str
    platforms: tuple[str, ...]
    layers: int
    contents: Contents

    def to_dict(self) -> dict[str, Any]:
        """For a JSON column."""
        return {
            "digest": self.digest,
            "platforms": list(self.platforms),
            "layers": self.layers,
            "contents": self.contents.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Json) -> Seen:
        contents = Contents.from_dict(data["contents"])
        return cls(data["digest"], tuple(data["platforms"]), data["layers"], contents)


def look(door: Door, architectures: Sequence[str] = ()) -> Seen:
    """Ask for the manifest, and read the configuration of the platform that these machines would pull.

    Nothing is pulled. SourceProblem says why it can't be seen, with the container's field to mend.
    """
    answer = _manifest(door, door.name.reference)
    digest = _digest(answer.body)
    if door.name.digest and digest != door.name.digest:
        raise problems.damaged(door.name)
    said = _object(door, answer)
    platforms: tuple[str, ...] = ()
    if isinstance(said.get("manifests"), list):
        entries = list(_entries(said["manifests"]))
        platforms = tuple(_named(one) for one in entries if one.get("platform"))
        said = _object(door, _blob_of(door, "manifests", _chosen(door, entries, architectures)))
    config, size, layers = _image(door, said)
    written = _object(door, _blob_of(door, "blobs", config))
    contents = contents_of(
        written.get("config"),
        system=written.get("os"),
        architectures=_architectures(platforms) or filter(None, [written.get("architecture")]),
        size=size,
        packed=True,
    )
    own = "/".join((contents.system, *contents.architectures))
    return Seen(digest, platforms or (own,), layers, contents)


def _manifest(door: Door, reference: str) -> Answer:
    answer = door.get(f"manifests/{reference}", ACCEPT)
    if answer.status == 404:
        raise _missing(door)
    return _good(door, answer)


def _good(door: Door, answer: Answer) -> Answer:
    if answer.status in (401, 403):
        raise problems.refused(door.name, door.username)
    if answer.status != 200:
        raise problems.answered(door.name, answer.status, answer.headers)
    return answer


def _missing(door: Door) -> Exception:
    """Whether it is the image or only this tag: a registry needn't tell, its list of tags does."""
    answer = door.get(f"tags/list?n={ASKED_TAGS}")
    said = answer.json() if answer.status == 200 else None
    tags = said.get("tags") if isinstance(said, Mapping) else None
    if not isinstance(tags, list):
        return problems.no_image(door.name)
    return problems.no_tag(door.name, [plain(tag) for tag in tags])


def _blob_of(door: Door, kind: str, described: Json) -> Answer:
    """What this descriptor names, checked against its digest."""
    digest = str(described.get("digest"))
    if not DIGEST.fullmatch(digest):
        raise problems.no_registry(door.name)
    answer = _good(door, door.get(f"{kind}/{digest}", ACCEPT if kind == "manifests" else ""))
    if _digest(answer.body) != digest:
        raise problems.damaged(door.name)
    return answer


def _object(door: Door, answer: Answer) -> Json:
    said = answer.json()
    if not isinstance(said, Mapping):
        raise problems.no_registry(door.name)
    if said.get("schemaVersion") == 1:
        raise problems.outdated(door.name)
    return said


def _entries(listed: Sequence[object]) -> Iterator[Json]:
    """Those that are images: builders list their attestations beside them, for no platform."""
    for one in listed:
        if isinstance(one, Mapping) and _platform(one).get("os") != "unknown":
            yield one


def _chosen(door: Door, entries: Sequence[Json], architectures: Sequence[str]) -> Json:
    """The one that these machines would pull; without such a one, any for Linux, else the first."""
    if not entries:
        raise problems.artifact(door.name, "")
    linux = [one for one in entries if _platform(one).get("os") == "linux"]
    fitting = [one for wanted in architectures for one in linux if _platform(one).get("architecture") == wanted]
    return (fitting or linux or list(entries))[0]


def _platform(entry: Json) -> Json:
    found = entry.get("platform")
    return found if isinstance(found, Mapping) else {}


def _named(entry: Json) -> str:
    parts = (_platform(entry).get(part) for part in ("os", "architecture", "variant"))
    return "/".join(plain(part) for part in parts if part)


def _architectures(platforms: Sequence[str]) -> list[str]:
    found = [one.split("/")[1] for one in platforms if one.startswith("linux/")]
    return list(dict.fromkeys(found))


def _image(door: Door, said: Json) -> tuple[Json, int, int]:
    """The descriptor of its configuration, the bytes of its layers as they are pulled, and how many there are."""
    config, layers = said.get("config"), said.get("layers")
    kind = config.get("mediaType") if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or kind not in CONFIGS or said.get("artifactType"):
        raise problems.artifact(door.name, plain(said.get("artifactType") or kind))
    if not isinstance(layers, list):
        raise problems.no_registry(door.name)
    sizes = [one.get("size") for one in layers if isinstance(one, Mapping)]
    return config, sum(size for size in sizes if isinstance(size, int)), len(layers)


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
