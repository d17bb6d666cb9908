"""A model in a bucket of objects: what S3 and Google Cloud Storage have in common.

A bucket has no commits. What a revision is pinned to is a digest over its model's objects: their names, sizes
and the tags (ETag, generation) by which the store tells one content of a name from the next.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

from endpoints.sources import network
from endpoints.sources import store as storage
from endpoints.sources.base import Found, Progress, SourceFile, SourceProblem
from endpoints.sources.download import Digest, Stream
from endpoints.sources.fetching import PATIENT, Patience, Wanted, asked_for, fetch_all
from endpoints.sources.looking import look
from endpoints.sources.paths import inside

MOST: Final = 20_000  # objects of a model's folder
MOST_BYTES: Final = 1 << 60
PIN: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Item:
    """An object. `tag`: the store's name for this content of it; `digest` where the listing tells one."""

    key: str
    size: int
    tag: str
    digest: Digest | None = None


class Bucket(Protocol):
    """A store's client. SourceProblem for what it refuses, with the setting to change."""

    @property
    def address(self) -> str:
        """For people and for names of folders: s3://models."""
        ...

    @property
    def origin(self) -> str:
        """The server, and with it what tells two buckets of one name apart."""
        ...

    def items(self, prefix: str) -> Iterator[Item]:
        """Those whose keys begin so, page by page."""
        ...

    def piece(self, item: Item, offset: int, size: int) -> bytes: ...

    def stream(self, item: Item, offset: int) -> AbstractContextManager[Stream]:
        """As `download.Open`: never another content than the item's, else SourceProblem("changed")."""
        ...

    def digest(self, item: Item) -> Digest | None:
        """What the bytes must come to, asking the store if the listing didn't tell."""
        ...


@dataclass(frozen=True)
class BucketSource:
    """`path`: the folder; `file`: the model file below it, "" for the preferred one; `revision`: a pin, or ""."""

    bucket: Bucket
    path: str
    file: str
    revision: str
    patience: Patience = PATIENT

    def check(self, engine: str = "llama.cpp") -> Found:
        found = look(self, revision="", engine=engine, where=self._where, wanted=self.file, field="path")
        chosen = next((one.files for one in found.choices if one.path == found.default_file), None)
        if chosen is None:  # who may list a bucket may not be the one who may read it
            self.bucket.piece(min(self._items.values(), key=lambda item: item.size or MOST_BYTES), 0, 1)
        if chosen is None and PIN.fullmatch(self.revision):
            return replace(found, revision=self.revision)  # `fetch` knows which files it was pinned to
        return replace(found, revision=self.pin(chosen or [file.path for file in found.files]))

    def files(self) -> list[SourceFile]:
        return [_file(path, item) for path, item in self._items.items()]

    def read(self, path: str, offset: int, size: int) -> bytes:
        asked_for([path], self.files(), self._where)
        return self.bucket.piece(self._items[path], offset, size)

    def at_hand(self, into: Path, files: Sequence[str]) -> Path | None:
        return None  # whether it is still what was pinned, only the store can tell

    def fetch(self, into: Path, progress: Progress, files: Sequence[str]) -> Path:
        """The files under into/<kind>/<bucket>-<key>/<pin>/, hard links to verified blobs."""
        wanted = [self._wanted(file) for file in asked_for(files, self.files(), self._where)]
        kind, _, name = self.bucket.address.partition("://")
        key = storage.key_of(self.bucket.origin, self.bucket.address, self.path)[:12]
        home = into / kind / f"{name}-{key}" / self.pin(files)
        return fetch_all(wanted, home, into, progress, origin=self.bucket.origin, patience=self.patience)

    def _wanted(self, file: SourceFile) -> Wanted:
        item = self._items[file.path]
        key = storage.key_of(self.bucket.origin, self.bucket.address, item.key, item.tag, str(item.size))
        return Wanted(file, key, lambda offset: self.bucket.stream(item, offset), lambda: self.bucket.digest(item))

    def pin(self, files: Sequence[str]) -> str:
        """The pin of these files. SourceProblem("changed") if it isn't the one that this revision has."""
        lines = "\n".join(f"{path}\0{self._items[path].tag}\0{self._items[path].size}" for path in sorted(files))
        found = hashlib.sha256(lines.encode()).hexdigest()[:40]
        if PIN.fullmatch(self.revision) and found != self.revision:
            raise SourceProblem(
                "changed",
                f"The model's objects in {self._where} were changed since this revision was pinned to them. "
                "Deploy a new revision, or import it again, to take what lies there now.",
                "path",
            )
        return found

    @property
    def _where(self) -> str:
        return f"{self.bucket.address}/{self.path}" if self.path else self.bucket.address

    @cached_property
    def _items(self) -> dict[str, Item]:
        """By the path below the folder; without the empty objects that stand for folders."""
        found, length = [], 0
        for item in self.bucket.items(f"{self.path}/" if self.path else ""):
            found.append(item)
            length += len(item.key) + len(item.tag)
            if len(found) > MOST or length > network.MOST:
                said = f"{self._where} holds more than {MOST:,} objects. Give the folder that the model lies in."
                raise SourceProblem("too_many", said, "path")
        items = {
            path: item for item in found if not item.key.endswith("/") and (path := inside(self.path, item.key))
        }
        if not items:
            raise self._nothing()
        return items

    def _nothing(self) -> SourceProblem:
        if not self.path:
            return SourceProblem("no_model", f"{self.bucket.address} is empty.", "bucket")
        if any(item.key == self.path for item in self.bucket.items(self.path)):
            parent, _, name = self.path.rpartition("/")
            said = f"{self._where} is one object. Give the folder “{parent}” as path and “{name}” as file."
            return SourceProblem("no_path", said, "path")
        said = f"{self.bucket.address} holds nothing under {self.path}/. Check the path; it is case-sensitive."
        return SourceProblem("no_path", said, "path")


def changed(address: str, item: Item) -> SourceProblem:
    """An object isn't what it was a moment or a month ago."""
    said = (
        f"{address}/{item.key} was replaced or deleted since it was pinned. "
        "Deploy a new revision, or import it again, to take what lies there now."
    )
    return SourceProblem("changed", said, "path")


def _file(path: str, item: Item) -> SourceFile:
    sha256 = item.digest.value if item.digest and item.digest.name == "sha256" else None
    return SourceFile(path, item.size, sha256, item.tag)
