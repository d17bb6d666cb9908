"""`python -m endpoints.sources SPEC INTO`: bring a model's files into a folder, where no console runs.

SPEC is a JSON file: {"source": the source's settings with the pinned revision, "files", the Hugging Face Hub's
address as "hub" and whether "private" addresses may be asked; "credential_file" or "credential_variable": where
the credential is, if there is one}. Each line on the standard output is JSON: {"done": 1,
"total": 2} in bytes, and at the end {"path": …} with exit code 0, or {"error": …, "code": …} with 1.

Where INTO lies among other models (see `shared`), "in_use" is the file that tells which of them are in use. The
last line then says how full the disk is too, as "cache", and is written to the file "report" as well.

Run again it goes on where it ended, and does nothing once all is there. Several at once take turns.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from endpoints.sources import SourceProblem, source_for
from endpoints.sources import store as storage
from endpoints.sources.note import BAD
from endpoints.sources.scan import scan_folder
from endpoints.sources.shared import Shared

HUB: Final = "https://huggingface.co"
STORE: Final = ".tir"  # below the folder, until all is there
MARK: Final = ".tir-fetched"
EVERY: Final = 1.0  # seconds between two lines about progress


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m endpoints.sources SPEC INTO", file=sys.stderr)  # noqa: T201
        return 2
    try:
        asked = json.loads(Path(arguments[0]).read_text())
    except (OSError, ValueError) as wrong:
        return end({"error": f"{type(wrong).__name__}: {wrong}", "code": "failed", "passing": False})
    into = Path(arguments[1]).absolute()
    if "in_use" not in asked:
        return end(outcome(lambda: fetch(asked, into)))
    shared = Shared(into, Path(asked["in_use"]))
    size = int(asked["source"].get("size") or 0)
    told = outcome(lambda: shared.bring(lambda: fetch(asked, into), size, wait))
    return end(told | room(shared), asked.get("report"))


def outcome(bring: Callable[[], Path]) -> dict[str, Any]:
    """The path that it answers, or what was wrong."""
    try:
        with storage.room_found():
            return {"path": str(bring())}
    except SourceProblem as problem:
        return {"error": problem.message, "code": problem.code, "passing": problem.passing}
    except (OSError, ValueError, KeyError) as wrong:
        return {"error": f"{type(wrong).__name__}: {wrong}", "code": "failed", "passing": False}


def room(shared: Shared) -> dict[str, Any]:
    """How full the folder of all models is, unless that can't be seen."""
    try:
        return {"cache": asdict(shared.room())}
    except OSError:
        return {}


def end(told: Mapping[str, Any], report: str | None = None) -> int:
    """Say the last line; the exit code."""
    say(told)
    if report:
        with suppress(OSError):  # nobody is told then, but the model is there
            Path(report).write_text(json.dumps(told))
    return 1 if "error" in told else 0


def wait() -> None:
    say({"waiting": True})


def fetch(asked: Mapping[str, Any], into: Path) -> Path:
    """The first file's path in the folder, which then holds these files and a mark only."""
    source, store = asked["source"], into / STORE
    files = list(source["files"])
    marked = _mark(source)
    into.mkdir(parents=True, exist_ok=True)
    with storage.locked(into, MARK.lstrip("."), wait):
        if not _whole(into, marked):
            found = source_for(
                source,
                store=store,
                token=_credential(asked),
                hub=str(source.get("hub") or os.environ.get("HF_ENDPOINT") or HUB),
                private=bool(source.get("private", True)),
            )
            first: Path = found.fetch(store, Progress(), files)
            _take(_root(first, files[0]), into, files)
            (into / MARK).write_text(json.dumps({"asked": marked, "sizes": _sizes(into, files)}))
            shutil.rmtree(store)
    return into.joinpath(files[0])


class Progress:
    """Says how far it is, now and then."""

    def __init__(self) -> None:
        self.said = 0.0

    def __call__(self, done: int, total: int) -> None:
        if done < total and time.monotonic() - self.said < EVERY:
            return
        self.said = time.monotonic()
        say({"done": done, "total": total})


def say(what: Mapping[str, Any]) -> None:
    print(json.dumps(what, ensure_ascii=False), flush=True)  # noqa: T201


def _credential(asked: Mapping[str, Any]) -> str | None:
    if file := asked.get("credential_file"):
        return Path(file).read_text()
    if name := asked.get("credential_variable"):
        return os.environ[name]
    return None


def _take(root: Path, into: Path, files: Sequence[str]) -> None:
    """Link the files to where they are read. SourceProblem if one of them must not be loaded."""
    bad = [note.said for note in scan_folder(root, files) if note.level == BAD]
    if bad:
        raise SourceProblem("unsafe", bad[0])
    for file in files:
        storage.link(root / file, into / file)


def _root(first: Path, file: str) -> Path:
    """The folder that the file's path is relative to."""
    return first.parents[len(Path(file).parts) - 1]


def _mark(source: Mapping[str, Any]) -> str:
    """Names what was asked for; by which credential and which way it came doesn't change it."""
    same = {name: value for name, value in source.items() if name not in {"token_secret", "hub", "private", "url"}}
    same |= {"url": source.get("url")} if source.get("kind") != "registry" else {}
    return storage.key_of(json.dumps(same, sort_keys=True))


def _whole(into: Path, marked: str) -> bool:
    """Whether just this was fetched here before, and lies here still."""
    try:
        known = json.loads((into / MARK).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return bool(known["asked"] == marked and known["sizes"] == _sizes(into, list(known["sizes"])))


def _sizes(into: Path, files: Sequence[str]) -> dict[str, int]:
    return {file: storage.size_of(into / file) for file in files}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
