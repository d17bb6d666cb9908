"""What an instance that ran out of memory tells of the next: it needs more than that one had."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

GIB: Final = 1 << 30


@dataclass(frozen=True)
class Floor:
    """`limit_bytes` were too little for `concurrency` sequences of `length` tokens, on that day.

    `above_bytes`: by how much the need is above the assumption at the least, which holds for other lengths and
    numbers of sequences; None where the need can't be counted.
    """

    limit_bytes: int
    length: int
    concurrency: int
    on: date
    above_bytes: int | None = None

    def covers(self, length: int, concurrency: int) -> bool:
        """Whether settings are no smaller than those that were too much."""
        return length >= self.length and concurrency >= self.concurrency

    def __str__(self) -> str:
        return (
            f"An instance of this model ran out of memory at {self.limit_bytes / GIB:.4g} GiB on "
            f"{self.on.day} {self.on:%b} ({self.length:,} tokens × {self.concurrency:,})."
        )
