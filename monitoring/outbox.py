"""What still has to be sent to one browser: bounded, however slowly it reads.

Ticks replace each other, doorbells add up to one, log lines are refused beyond a number (they are read again
from the database later), answers to what the browser itself asked are kept up to a number.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

Json = dict[str, Any]
MOST_LINES = 2_000
MOST_ANSWERS = 100


class Overrun(Exception):
    """The browser asks faster than it reads the answers."""


class Outbox:
    def __init__(self) -> None:
        self._answers: deque[Json] = deque()
        self._rung: list[str] = []
        self._logs: deque[Json] = deque()
        self._lines = 0
        self._tick = self._charts = ""  # encoded already
        self._filled = asyncio.Event()

    def answer(self, message: Json) -> None:
        """Raises Overrun."""
        if len(self._answers) >= MOST_ANSWERS:
            raise Overrun
        self._answers.append(message)
        self._filled.set()

    def ring(self, what: list[str]) -> None:
        self._rung += [name for name in what if name not in self._rung]
        self._filled.set()

    def tick(self, text: str, *, charts: bool = False) -> None:
        """Only the newest counts, and the newest points of charts, which come more rarely."""
        if charts:
            self._charts = text
        else:
            self._tick = text
        self._filled.set()

    def log(self, message: Json) -> bool:
        """False when too many lines wait already; none of these were taken then."""
        count = len(message["lines"])
        if self._lines and self._lines + count > MOST_LINES:
            return False
        self._logs.append(message)
        self._lines += count
        self._filled.set()
        return True

    def forget_logs(self) -> None:
        self._logs.clear()
        self._lines = 0

    async def next(self) -> Json | str:
        """The next message, or its JSON text: answers first, then doorbells, log lines, numbers."""
        while True:
            message = self._take()
            if message is not None:
                return message
            self._filled.clear()
            await self._filled.wait()

    def _take(self) -> Json | str | None:
        if self._answers:
            return self._answers.popleft()
        if self._rung:
            what, self._rung = self._rung, []
            return {"type": "doorbell", "what": what}
        if self._logs:
            message = self._logs.popleft()
            self._lines -= len(message["lines"])
            return message
        if self._charts:
            text, self._charts = self._charts, ""
            return text
        text, self._tick = self._tick, ""
        return text or None
