"""Heads that were read before: a caller's next request mostly repeats the last one's, an engine's answer too.

What a head says follows from its bytes alone, so the result of reading it whole once, by the parser and with all
its checks, holds for the same bytes again. Only the digits of its Content-Length may differ.
"""

import re
from typing import Generic, TypeVar

T = TypeVar("T")
Key = (
    bytes | tuple[bytes, bytes]
)  # what stands before and behind the digits; never to be mistaken for a head without

END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d{1,15})\r\n")
MOST = 2048  # heads kept; past that all are forgotten, and the next ones read anew
LONGEST = 4096  # bytes of a head that is worth keeping


class Heads(Generic[T]):
    """What was read out of heads, by their bytes without the digits of the length."""

    def __init__(self) -> None:
        self.known: dict[Key, T] = {}
        self.last: tuple[bytes, T | None, int, int] = (END, None, 0, 0)  # no head begins with that

    def find(self, data: bytes) -> tuple[T | None, int, int]:
        """What the head at the start of `data` says, if it was kept; where its body begins, and its length."""
        last, read, start, size = self.last
        if data.startswith(last):
            return read, start, size
        end = data.find(END)
        if end <= 0:
            return None, 0, 0
        length = LENGTH.search(data, 0, end + 2)
        if length is None:
            read, size = self.known.get(data[:end]), 0
        else:
            start, stop = length.span(1)
            read, size = self.known.get((data[:start], data[stop:end])), int(data[start:stop])
        if read is not None:
            self.last = data[: end + 4], read, end + 4, size
        return read, end + 4, size

    def keep(self, data: bytes, read: T, length: bytes | None) -> None:
        """Keep what the parser read out of the head at the start of `data`, whose Content-Length it says is
        `length`. Not where another reader might see another end or another length than this class does."""
        end = data.find(END)
        if not 0 < end <= LONGEST or data.count(b"\n", 0, end) != data.count(b"\r\n", 0, end):
            return
        if data.startswith((b"\r", b"\n")):
            return  # the parser passes over these, and what ends at `end` may be none of the head
        found = LENGTH.search(data, 0, end + 2)
        if (found[1] if found else None) != length:
            return
        if len(self.known) >= MOST:
            self.known.clear()
        key: Key = (data[: found.start(1)], data[found.end(1) : end]) if found else data[:end]
        self.known[key] = read
