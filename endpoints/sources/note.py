"""One line of a report on a model's files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

OK, NOTE, WARN, BAD = "ok", "note", "warn", "bad"
LEVELS: Final = (OK, NOTE, WARN, BAD)


@dataclass(frozen=True)
class Note:
    """`path` ("" speaks of the whole folder), how bad it is, what is so, and what to do."""

    path: str
    level: str
    text: str
    todo: str = ""

    @property
    def said(self) -> str:
        """The whole of it as one sentence or two, for a log or a phase."""
        return " ".join(part for part in (f"{self.path}:" if self.path else "", self.text, self.todo) if part)


def worst(notes: Iterable[Note]) -> str:
    """The worst level among them; "ok" for none."""
    return max((note.level for note in notes), key=LEVELS.index, default=OK)
