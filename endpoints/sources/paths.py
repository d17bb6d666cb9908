"""Paths as people and repositories write them, kept inside the folder they belong into."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from endpoints.sources.base import SourceProblem

LONGEST_NAME: Final = 200  # bytes: disks take 255, and what is half made has a longer name
LONGEST_PATH: Final = 1024


def folder(written: Any) -> str:
    """A folder of a repository or a bucket without the slashes around it; "" for the root."""
    return str(written or "").strip().strip("/")


def inside(parent: str, path: str) -> str:
    """The path relative to this folder; "" if it lies elsewhere, or would leave the place it is put into."""
    if parent and not path.startswith(f"{parent}/"):
        return ""
    relative = path[len(parent) + 1 :] if parent else path
    parts = PurePosixPath(relative)
    harmless = relative == str(parts) and not parts.is_absolute() and ".." not in parts.parts
    harmless = harmless and not any(letter in "\\\0" or "\ud800" <= letter <= "\udfff" for letter in relative)
    return relative if harmless and relative != "." else ""


def require_places(paths: Sequence[str], where: str) -> None:
    """SourceProblem("bad_name") unless all these files can lie beside each other on a disk: other stores know no
    folders, and longer names."""
    known = set(paths)
    for path in paths:
        if len(path.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in path.split("/")):
            longest = f"a name may have {LONGEST_NAME} bytes here, a path {LONGEST_PATH}"
            said = f"{where} holds “{path[:40]}…”, and {longest}. Give it a shorter one."
            raise SourceProblem("bad_name", said, "path")
        if clash := next((str(above) for above in PurePosixPath(path).parents if str(above) in known), None):
            said = f"{where} holds “{clash}” and “{path}”, and no disk has a file that is a folder, too."
            raise SourceProblem("bad_name", f"{said} Rename one of them.", "path")
