"""What a draft's files are, looked at before they become a version."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings

from accounts.refused import Refused
from endpoints.models import VersionDraft
from endpoints.sources import SourceFile, SourceProblem
from endpoints.sources.base import read_model
from endpoints.sources.choices import model_choices
from endpoints.sources.layout import GGUF, Layout, layout_of, main_file
from endpoints.sources.note import Note
from endpoints.sources.scan import scan_folder


def look(draft: VersionDraft) -> dict[str, Any]:
    """The columns of the version it would become: path, files, kind, facts, report. Raises Refused.

    Takes as long as looking through pickled weights does; call it outside a transaction.
    """
    files = draft.ready_files()
    known = [SourceFile(file["path"], file["size"], file["sha256"]) for file in files]
    layout = layout_of(known, _reader(draft.folder))
    scan = scan_folder(draft.folder, [file.path for file in known])
    path = draft.folder / main_file(known, layout.kind)
    return {
        "files": files,
        "path": str(path.relative_to(settings.DATA_DIR)),
        "kind": layout.kind,
        "facts": _facts(draft.folder, known) if layout.kind == GGUF else {},
        "report": _report(layout, scan),
    }


def preview(draft: VersionDraft) -> Layout | None:
    """What the files that are here look like so far; None without any."""
    known = [SourceFile(upload.path, upload.size, upload.sha256) for upload in draft.files]
    return layout_of(known, _reader(draft.folder)) if known else None


def _report(layout: Layout, scan: list[Note]) -> dict[str, Any]:
    return {"layout": layout.to_dict(), "scan": [asdict(note) for note in scan]}


def _reader(folder: Path) -> Any:
    def read(path: str, offset: int, size: int) -> bytes:
        with (folder / path).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


def _facts(folder: Path, files: list[SourceFile]) -> dict[str, Any]:
    """Of the GGUF model that stands for the version."""
    choices = model_choices(files)
    if not choices:
        raise Refused("A part of the split GGUF model is missing. Upload all its parts.", code="incomplete")
    try:
        return read_model(_Here(folder), choices[0], {file.path: file.size for file in files}).to_dict()  # type: ignore[arg-type]
    except SourceProblem as problem:
        raise Refused(f"{problem.message} Remove it or upload it again.", code=problem.code) from None


class _Here:
    """Files of a folder, read as a source's are."""

    def __init__(self, folder: Path) -> None:
        self.read = _reader(folder)
