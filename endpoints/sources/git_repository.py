"""A repository as far as it was needed: one bare copy for each address, in the store, under a lock.

Of a commit its trees and small files are fetched together, and larger files one by one: what came before the
connection was cut is kept. What lies here is handed out only to who the server has just let in.
"""

import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from endpoints.sources import cache
from endpoints.sources import store as storage
from endpoints.sources.base import SourceProblem
from endpoints.sources.git_client import Access, Failed, local, run
from endpoints.sources.git_problems import NO_OBJECT, no_revision, problem_of
from endpoints.sources.network import too_long

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
SMALL: Final = 65_536  # bytes of a file that comes with its commit
FETCH: Final = ("fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance")
LEFT_BEHIND: Final = ("*.lock", "objects/pack/tmp_*", "objects/pack/*.lock")  # by a fetch that was killed
MEMORY: Final = 512 << 20  # bytes: Git keeps all the names that a server tells, a million of them in half of it
OUT_OF_MEMORY: Final = re.compile(r"out of memory", re.IGNORECASE)
SUBMODULE: Final = "160000"
FILES: Final = frozenset({"100644", "100755"})

CONFIG: Final = """[core]
	repositoryFormatVersion = 1
	bare = true
[extensions]
	partialClone = origin
[remote "origin"]
	url = "{url}"
	promisor = true
"""

Waiting = Callable[[], None]


@dataclass(frozen=True)
class Entry:
    """A file of a commit: `name` is its blob's."""

    path: str
    name: str
    size: int


@dataclass(frozen=True)
class Pinned:
    """A commit, and the name under which the server offers it, where it has one."""

    commit: str
    ref: str = ""


@dataclass(frozen=True)
class Repository:
    """`access` is asked each time; `store` is the store's root."""

    access: Access
    store: Path

    @property
    def path(self) -> Path:
        return self.store / "repositories" / f"{storage.key_of(self.access.address.url)[:32]}.git"

    def pin(self, revision: str, waiting: Waiting) -> Pinned:
        """What a branch, tag or commit is now; "" is the default branch. Asks the server in any case."""
        names = [revision, f"refs/heads/{revision}", f"refs/tags/{revision}"] if revision else ["HEAD"]
        refs = self._refs(["HEAD", *names, *(f"{name}^{{}}" for name in names)], waiting)
        for name in names:
            if found := refs.get(f"{name}^{{}}") or refs.get(name):
                return Pinned(found, name)
        if COMMIT.fullmatch(revision):
            return Pinned(revision)
        branches = [name.removeprefix("refs/heads/") for name in self._refs(["refs/heads/*"], waiting)]
        if not branches and not refs:
            raise SourceProblem("no_model", f"{self.access.address.url} is empty.", "url")
        raise no_revision(self.access, revision, branches)

    def entries(self, pinned: Pinned, folder: str, waiting: Waiting) -> list[Entry]:
        """The files of a folder at this commit, by their paths below it, fetched if they aren't here yet."""
        with self._locked(waiting) as held:
            if not self._has(pinned.commit):
                self._fetch_commit(pinned, waiting, held)
            listed = self._listed(pinned.commit, folder)
            missing = self._missing(pinned.commit) & set(listed.values())
            for name in sorted(missing):
                self._fetch([name], ["--filter=blob:none"], waiting, held)
            sizes = self._sizes(sorted(set(listed.values())))
        return [Entry(path, name, sizes[name]) for path, name in listed.items()]

    def contents(self, names: Sequence[str]) -> dict[str, bytes]:
        """What is in these blobs, which are small and lie here."""
        said, found = self._git("cat-file", "--batch", lines="".join(f"{name}\n" for name in names)), {}
        while said:
            head, _, rest = said.partition(b"\n")
            name, _, size = head.decode().split()
            found[name], said = rest[: int(size)], rest[int(size) + 1 :]
        return found

    def setting(self, commit: str, file: str, name: str) -> str:
        """A setting from a file of the commit in Git's format; "" if there is none."""
        try:
            return self._git("config", f"--blob={commit}:{file}", name).decode().strip()
        except Failed:
            return ""

    def _refs(self, names: Sequence[str], waiting: Waiting) -> dict[str, str]:
        arguments = ["ls-remote", "--quiet", "--", self.access.address.url, *names]
        with self.access.opened() as environment:
            try:
                said = run(arguments, environment, stall=self.access.stall, waiting=waiting, memory=MEMORY)
            except Failed as failed:
                if OUT_OF_MEMORY.search(str(failed)):
                    raise too_long(self.access.address.host) from None
                raise problem_of(str(failed), self.access) from None
        rows = (line.split("\t") for line in said.decode().splitlines())
        return {name: commit for commit, name in rows}

    def _fetch_commit(self, pinned: Pinned, waiting: Waiting, held: int) -> None:
        how = ["--depth=1", f"--filter=blob:limit={SMALL}"]
        try:
            self._fetch([pinned.commit], how, waiting, held)
        except SourceProblem as refused:  # an old server gives only what it offers by name
            if refused.code != "no_revision" or not pinned.ref:
                raise
            self._fetch([pinned.ref], how, waiting, held)
        if not self._has(pinned.commit):
            raise no_revision(self.access, pinned.commit)

    def _fetch(self, wanted: Sequence[str], how: Sequence[str], waiting: Waiting, held: int) -> None:
        arguments = ["-C", str(self.path), *FETCH, *how, "--stdin", "origin"]
        lines = "".join(f"{one}\n" for one in wanted)
        with self.access.opened() as environment:
            try:
                run(arguments, environment, lines=lines, stall=self.access.stall, waiting=waiting, held=held)
            except Failed as failed:
                if NO_OBJECT.search(str(failed)):
                    raise no_revision(self.access, wanted[0]) from None
                raise problem_of(str(failed), self.access) from None

    def _listed(self, commit: str, folder: str) -> dict[str, str]:
        """Path -> blob. Links and submodules aren't followed."""
        try:
            said = self._git("ls-tree", "-r", "-z", "--full-tree", f"{commit}:{folder}" if folder else commit)
        except Failed:
            raise self._no_folder(folder) from None
        rows = [row.split("\t", 1) for row in said.decode(errors="surrogateescape").split("\0") if row]
        kinds = {path: what.split() for what, path in rows}
        found = {path: words[2] for path, words in kinds.items() if words[0] in FILES}
        modules = [path for path, words in kinds.items() if words[0] == SUBMODULE]
        if modules and not found:
            where = f"“{folder}”" if folder else self.access.address.url
            said_so = (
                f"{where} holds only the submodule “{modules[0]}”, and submodules aren't followed. "
                "Give the address of the submodule's own repository."
            )
            raise SourceProblem("submodule", said_so, "path")
        return found

    def _no_folder(self, folder: str) -> SourceProblem:
        said = f"{self.access.address.url} has no folder “{folder}” at this revision."
        return SourceProblem("no_path", said, "path")

    def _missing(self, commit: str) -> set[str]:
        said = self._git("rev-list", "--objects", "--no-object-names", "--missing=print", "-1", commit)
        return {line[1:] for line in said.decode().splitlines() if line.startswith("?")}

    def _sizes(self, names: Sequence[str]) -> dict[str, int]:
        lines = "".join(f"{name}\n" for name in names)
        said = self._git("cat-file", "--batch-check=%(objectname) %(objectsize)", lines=lines)
        return {name: int(size) for name, size in (line.split() for line in said.decode().splitlines())}

    def _has(self, commit: str) -> bool:
        try:
            self._git("cat-file", "-e", f"{commit}^{{commit}}")
        except Failed:
            return False
        return True

    def _git(self, *arguments: str, lines: str = "") -> bytes:
        return run(["-C", str(self.path), *arguments], local(), lines=lines)

    @contextmanager
    def _locked(self, waiting: Waiting) -> Iterator[int]:
        """Alone with the repository, which is made if it isn't there; what a killed fetch left is removed."""
        key = storage.key_of("repository", self.access.address.url)
        with storage.room_found(), storage.locked(self.store, key, waiting) as held:
            storage.require_space(self.store, SMALL, self.access.address.url)
            cache.claim(self.store, self.path)
            if not (self.path / "HEAD").exists():
                self._make()
            for pattern in LEFT_BEHIND:
                for file in self.path.glob(pattern):
                    file.unlink()
            yield held

    def _make(self) -> None:
        """Without hooks, and with no credential in its settings."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f".{uuid.uuid4().hex}")
        try:
            run(["init", "--quiet", "--bare", "--template=", str(fresh)], local())
            url = self.access.address.url.replace("\\", "\\\\").replace('"', '\\"')
            (fresh / "config").write_text(CONFIG.format(url=url))
            fresh.rename(self.path)  # over the empty folder that the claim made
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
