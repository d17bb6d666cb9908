"""Following one instance's log: nothing twice, nothing left out, and never more than a page can show."""

from __future__ import annotations

from typing import Any

from endpoints.models import Instance
from monitoring import access, logs
from monitoring.outbox import Outbox

STEP = 500
FAR = 1_000  # further behind than this, a page gets the newest lines and a gap instead of all


class Follower:
    """Where one browser is in one log. `sent` is the sequence number of the last line put in the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.instance: Instance | None = None
        self.sent = 0

    async def follow(self, instance: Instance, after: int) -> None:
        """Send the lines after `after` (0: the newest), then those that come."""
        self.leave()
        self.instance, self.sent = instance, after
        await self._catch_up()

    def leave(self) -> None:
        self.outbox.forget_logs()
        self.instance = None

    async def came(self, message: dict[str, Any]) -> None:
        """New lines were announced. If some before them are missing here, the database has them."""
        if self.instance is None or message["instance"] != self.instance.name:
            return
        if message["first"] > self.sent + 1 or message["first"] <= self.sent < message["last"]:
            await self._catch_up()
        elif message["last"] > self.sent and self._put(message["lines"]):
            self.sent = message["last"]

    async def _catch_up(self) -> None:
        instance = self.instance
        if instance is None:
            return
        newest = await access.newest_lines(instance, 1)
        if newest.last - self.sent > FAR:
            page = await access.newest_lines(instance, FAR)
            skipped = [{"gap": True}] if self.sent else []
            if self._put(skipped + logs.entries(page.lines)):
                self.sent = page.last
            return
        while self.instance is instance:
            page = await access.lines_after(instance, self.sent, STEP)
            if not page.lines or not self._put(logs.entries(page.lines)):
                return
            self.sent = page.last
            if len(page.lines) < STEP:
                return

    def _put(self, lines: list[dict[str, Any]]) -> bool:
        name = self.instance.name if self.instance else ""
        return self.outbox.log({"type": "log", "instance": name, "lines": lines})
