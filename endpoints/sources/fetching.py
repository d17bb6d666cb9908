"""Bring a model's files to this machine: the same way for every place they can come from."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from endpoints.sources import cache
from endpoints.sources import store as storage
from endpoints.sources.base import Progress, SourceFile, SourceProblem
from endpoints.sources.download import Digest, Download, Open, download
from endpoints.sources.paths import require_places


@dataclass(frozen=True)
class Wanted:
    """A file to bring. `key` names these very bytes for ever, wherever the source declares no sha256.

    `expected` is asked just before the bytes are: some stores tell a digest to a question of its own only.
    """

    file: SourceFile
    key: str
    open: Open
    expected: Callable[[], Digest | None] = lambda: None


@dataclass(frozen=True)
class Patience:
    """Seconds without progress until a connection is given up; attempts without progress until all is."""

    stall: float = 30.0
    attempts: int = 5


PATIENT: Final = Patience()


def fetch_all(
    wanted: Sequence[Wanted],
    home: Path,
    store: Path,
    progress: Progress,
    *,
    origin: str,
    patience: Patience = PATIENT,
) -> Path:
    """The files under `home`, hard links to verified blobs; answers the first one's path. A second call asks
    for no bytes, and one that was cut off goes on where it ended. `origin` names the server in problems.
    """
    total, before = sum(one.file.size for one in wanted), 0
    progress(0, total)
    with storage.room_found():
        cache.claim(store, home)
        _require_space(wanted, store)
        for one in wanted:
            _bring(one, store, home / one.file.path, _shifted(progress, before, total), origin, patience)
            cache.claim(store, home)
            before += one.file.size
            progress(before, total)
    return home / wanted[0].file.path


def asked_for(files: Sequence[str], known: Sequence[SourceFile], where: str) -> list[SourceFile]:
    """The files by their paths, in the order asked. SourceProblem("no_file") for one that isn't there,
    "bad_name" for those that no disk takes together."""
    by_path: Mapping[str, SourceFile] = {file.path: file for file in known}
    missing = [path for path in files if path not in by_path]
    if missing:
        raise SourceProblem("no_file", f"{where} has no file “{missing[0]}”.", "file")
    require_places(files, where)
    return [by_path[path] for path in files]


def _bring(
    one: Wanted, store: Path, place: Path, progress: Callable[[int], None], origin: str, patience: Patience
) -> None:
    """Have the verified file at its place; only one process at a time fetches it, the others watch."""
    key = one.file.sha256 or one.key
    partial = storage.partial_path(store, key)

    def watch() -> None:
        progress(min(one.file.size, storage.size_of(partial)))

    with storage.locked(store, key, watch):
        if (sha256 := _digest(one, store)) and _named(sha256, store, key, place):
            return
        expected = Digest("sha256", one.file.sha256) if one.file.sha256 else one.expected()
        asked = Download(one.open, partial, one.file.size, expected, origin, patience.stall, patience.attempts)
        sha256 = download(asked, progress)
        if not one.file.sha256:
            storage.remember_key(store, key, sha256)
        storage.link(storage.keep(partial, store, sha256), place)


def _named(sha256: str, store: Path, key: str, place: Path) -> bool:
    """Link the blob to its place if it lies here, while nobody can remove it."""
    with nullcontext() if key == sha256 else storage.locked(store, sha256):
        if not storage.blob_path(store, sha256).exists():
            return False
        storage.link(storage.blob_path(store, sha256), place)
    return True


def _digest(one: Wanted, store: Path) -> str:
    return one.file.sha256 or storage.known_key(store, one.key)


def _known(one: Wanted, store: Path) -> Path | None:
    """The blob, if it lies here already."""
    sha256 = _digest(one, store)
    blob = storage.blob_path(store, sha256) if sha256 else None
    return blob if blob and blob.exists() else None


def _require_space(wanted: Sequence[Wanted], store: Path) -> None:
    missing = [one for one in wanted if not _known(one, store)]
    here = sum(storage.size_of(storage.partial_path(store, one.file.sha256 or one.key)) for one in missing)
    what = missing[0].file.path if len(missing) == 1 else "The model"
    storage.require_space(store, max(0, sum(one.file.size for one in missing) - here), what)


def _shifted(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total)
