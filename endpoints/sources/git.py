"""A model in a Git repository, pinned to a commit: over https with a token, or over ssh with a key."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from endpoints.sources import store as storage
from endpoints.sources.base import Found, Progress, SourceFile, SourceProblem
from endpoints.sources.download import Stream
from endpoints.sources.fetching import PATIENT, Patience, Wanted, asked_for, fetch_all
from endpoints.sources.git_address import Address
from endpoints.sources.git_client import Access, blob
from endpoints.sources.git_repository import Entry, Pinned, Repository
from endpoints.sources.lfs import LONGEST_POINTER, LargeFiles, pointer
from endpoints.sources.looking import look
from endpoints.sources.paths import folder, inside


@dataclass(frozen=True)
class GitSource:
    """`revision`, `path` and `file` may be "": the default branch, the root, the preferred GGUF file.

    `store` keeps what was fetched of repositories; `waiting` is called now and then while Git works.
    """

    access: Access
    revision: str
    path: str
    file: str
    store: Path
    patience: Patience = PATIENT
    waiting: Callable[[], None] = field(default=lambda: None, repr=False)

    @classmethod
    def of(cls, spec: Mapping[str, Any], *, store: Path, token: str | None, private: bool) -> "GitSource":
        """From the source's settings; `token` is a token for https, or a private key for ssh."""
        access = Access(
            Address.of(str(spec.get("url") or "")),
            str(spec.get("username") or "").strip(),
            (token or "").strip() or None,
            str(spec.get("host_key") or ""),
            private,
        )
        revision = str(spec.get("revision") or "").strip()
        return cls(access, revision, folder(spec.get("path")), str(spec.get("file") or "").strip(), store)

    def check(self, engine: str = "llama.cpp") -> Found:
        return look(
            self, revision=self._pinned.commit, engine=engine, where=self._where, wanted=self.file, field="path"
        )

    def files(self) -> list[SourceFile]:
        return list(self._files.values())

    def read(self, path: str, offset: int, size: int) -> bytes:
        [file] = asked_for([path], self.files(), self._where)
        if file.sha256:
            return self._large.piece(file, offset, size)
        piece = b""
        for part in blob(self._repository.path, self._entries[path].name, offset):
            piece += part
            if len(piece) >= size:
                break
        return piece[:size]

    def at_hand(self, into: Path, files: Sequence[str]) -> Path | None:
        return None  # who may have it, the server says

    def fetch(self, into: Path, progress: Progress, files: Sequence[str]) -> Path:
        """The files under into/git/<name>-<key>/<commit>/<path>/, hard links to verified blobs."""
        asked = replace(self, waiting=lambda: progress(0, 0))
        return asked._fetch(into, progress, files)

    def _fetch(self, into: Path, progress: Progress, files: Sequence[str]) -> Path:
        wanted = [self._wanted(file) for file in asked_for(files, self.files(), self._where)]
        address = self.access.address
        name = address.path.rstrip("/").rpartition("/")[2].removesuffix(".git")
        home = into / "git" / f"{name}-{storage.key_of(address.url)[:12]}" / self._pinned.commit / self.path
        return fetch_all(wanted, home, into, progress, origin=address.host, patience=self.patience)

    def _wanted(self, file: SourceFile) -> Wanted:
        name = self._entries[file.path].name
        key = storage.key_of("git", self.access.address.url, name)
        return Wanted(file, key, lambda offset: self._stream(file, name, offset))

    def _stream(self, file: SourceFile, name: str, offset: int) -> AbstractContextManager[Stream]:
        return self._large.stream(file, offset) if file.sha256 else self._local(name, offset)

    @contextmanager
    def _local(self, name: str, offset: int) -> Iterator[Stream]:
        yield Stream(offset, blob(self._repository.path, name, offset))

    @property
    def _where(self) -> str:
        return f"{self.access.address.url} in “{self.path}”" if self.path else self.access.address.url

    @property
    def _repository(self) -> Repository:
        return Repository(self.access, self.store)

    @cached_property
    def _pinned(self) -> Pinned:
        return self._repository.pin(self.revision, self.waiting)

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        found = self._repository.entries(self._pinned, self.path, self.waiting)
        return {entry.path: entry for entry in found if inside("", entry.path)}

    @cached_property
    def _files(self) -> dict[str, SourceFile]:
        """By path; with the size and digest of what a pointer names, not of the pointer."""
        small = {entry.name for entry in self._entries.values() if entry.size <= LONGEST_POINTER}
        contents = self._repository.contents(sorted(small))
        found = {}
        for path, entry in self._entries.items():
            named = pointer(contents.get(entry.name, b""))
            size, sha256 = (named[1], named[0]) if named else (entry.size, None)
            found[path] = SourceFile(path, size, sha256, entry.name)
        if not found:
            raise SourceProblem("no_model", f"{self._where} holds no files.", "path")
        return found

    @cached_property
    def _large(self) -> LargeFiles:
        return LargeFiles(self.access, self._repository.setting(self._pinned.commit, ".lfsconfig", "lfs.url"))
