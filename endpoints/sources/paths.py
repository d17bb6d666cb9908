"""Paths as people and repositories write them, kept inside the folder they belong into."""

from pathlib import PurePosixPath
from typing import Any


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
    return relative if harmless and relative != "." and "\\" not in relative and "\0" not in relative else ""
