"""What an instance leaves on disk: its record, its address, how it ended, and its log."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from endpoints.runtimes.base import LogLine
from endpoints.runtimes.scan import Labels


@dataclass(frozen=True)
class Fate:
    """How an instance ended. `exit_code` is None when nobody saw it; `asked`: it had been told to stop."""

    exit_code: int | None
    asked: bool
    finished_at: float
    oom: bool = False

    def message(self, last_words: str) -> str:
        """Why, in a few words, with the engine's last line where that says more."""
        if self.exit_code is None:
            return "ended unseen: its supervisor was killed or the machine restarted"
        if self.oom:
            return "killed: it needed more memory than its limit"
        if self.asked and self.exit_code in {0, 143}:
            return "stopped when asked"
        if self.asked and self.exit_code == 137:
            return "killed: it did not stop in time"
        how = f"killed by signal {self.exit_code - 128}" if self.exit_code > 128 else f"exit code {self.exit_code}"
        said = last_words.removeprefix("serving: ")
        return f"{how}: {said}" if said else how


@dataclass(frozen=True)
class Folder:
    """The folder of one instance. Everything in it is written whole or not at all."""

    path: Path

    @property
    def config(self) -> Path:
        """The engine's config."""
        return self.path / "config.json"

    @property
    def address_file(self) -> Path:
        """Where the engine says how to reach it."""
        return self.path / "address"

    def create(self, labels: Labels, config: dict[str, Any]) -> None:
        """Make the folder of a new instance; readable by nobody else."""
        self.path.mkdir(mode=0o700)
        _write(self.config, json.dumps(config))
        _write(self.path / "instance.json", json.dumps(asdict(labels)))

    def labels(self) -> Labels | None:
        """The record made at the start; None if there is none."""
        found = _read(self.path / "instance.json")
        try:
            return Labels(**found) if found else None
        except TypeError:  # written by another version: not ours to judge
            return None

    def address(self) -> str | None:
        """The engine's address, as soon as it has one."""
        try:
            return self.address_file.read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None

    def fate(self) -> Fate | None:
        """How it ended; None as long as nobody wrote that."""
        found = _read(self.path / "exit.json")
        return Fate(**found) if found else None

    def settled(self) -> bool:
        """Whether it has an address or an end."""
        return self.address_file.exists() or (self.path / "exit.json").exists()

    def settle(self, fate: Fate) -> None:
        """Write down an end that the supervisor could not."""
        _write(self.path / "exit.json", json.dumps(asdict(fate)))

    def mark_leaving(self) -> None:
        """Remember across workers that it was asked to stop."""
        (self.path / "leaving").touch(mode=0o600)

    def leaving(self) -> bool:
        """Whether it was asked to stop."""
        return (self.path / "leaving").exists()

    def last_trace(self) -> float:
        """When it last wrote anything, in seconds since 1970."""
        return max(entry.stat().st_mtime for entry in [self.path, *self.path.rglob("*")])

    def remove(self) -> None:
        """Drop everything."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path)

    def lines(self, after: int, limit: int) -> list[LogLine]:
        """At most `limit` log lines numbered above `after`; the last -n for `after=-n`."""
        try:
            starts = sorted(int(entry) for entry in os.listdir(self.path / "log"))
        except FileNotFoundError:
            return []
        if after < 0:
            return self._last(starts, -after)[:limit]
        found: list[LogLine] = []
        for start, following in zip_longest(starts, starts[1:]):
            if following is not None and following <= after + 1:
                continue
            found += self._segment(start, after)
            if len(found) >= limit:
                break
        return found[:limit]

    def _last(self, starts: list[int], count: int) -> list[LogLine]:
        found: list[LogLine] = []
        for start in reversed(starts):
            found = self._segment(start, 0) + found
            if len(found) >= count:
                break
        return found[-count:]

    def _segment(self, start: int, after: int) -> list[LogLine]:
        """The complete lines of one segment numbered above `after`; none if it was rotated away meanwhile."""
        try:
            raw = (self.path / "log" / f"{start:020d}").read_bytes()
        except FileNotFoundError:
            return []
        lines = raw.split(b"\n")[:-1]
        skip = max(0, after + 1 - start)
        return [_line(line, start + skip + index) for index, line in enumerate(lines[skip:])]


def _line(raw: bytes, number: int) -> LogLine:
    at, stream, text = raw.split(b" ", 2)
    return LogLine(
        at=datetime.fromtimestamp(float(at), UTC),
        stream="stdout" if stream == b"o" else "stderr",
        text=text.decode("utf-8", "replace"),
        offset=number,
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # a torn file says nothing: one bad folder must not stop a sweep
        return None
    return found


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
