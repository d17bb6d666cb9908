"""The files of a model as the last check saw them, each with what the layout's report says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from endpoints.sources.note import BAD, NOTE, OK, WARN, Note
from endpoints.wizard.looks import Look

MOST: Final = 200  # rows of a page
TONES: Final = {OK: "ok", NOTE: "idle", WARN: "warn", BAD: "bad"}
WORDS: Final = {OK: "Good", NOTE: "Note", WARN: "Look at this", BAD: "Missing or wrong"}


@dataclass(frozen=True)
class Row:
    path: str
    size: int | None
    level: str
    text: str

    @property
    def tone(self) -> str:
        return TONES[self.level]

    @property
    def word(self) -> str:
        return WORDS[self.level]


@dataclass(frozen=True)
class Report:
    rows: Sequence[Row]
    more: int

    @property
    def bad(self) -> int:
        return sum(row.level == BAD for row in self.rows)

    @property
    def warned(self) -> int:
        return sum(row.level == WARN for row in self.rows)

    @property
    def said(self) -> str:
        """How it stands, in a few words."""
        told = [f"{self.bad} to mend"] if self.bad else []
        told += [f"{self.warned} to look at"] if self.warned else []
        return ", ".join(told) or f"{len(self.rows) + self.more}, as they should be"


def report_of(look: Look | None) -> Report | None:
    """The worst first; None where no report was made, as for an engine that loads one file."""
    layout = look.found.layout if look else None
    if look is None or layout is None:
        return None
    sizes = {file.path: file.size for file in look.found.files}
    worst = sorted(layout.notes, key=lambda note: (-list(TONES).index(note.level), note.path))
    rows = [_row(note, sizes) for note in worst]
    return Report(rows[:MOST], max(0, len(rows) - MOST))


def _row(note: Note, sizes: dict[str, int]) -> Row:
    return Row(note.path, sizes.get(note.path), note.level, f"{note.text} {note.todo}".strip())
