"""What programs say: in the terminal with the program's name, and in a log file that can't grow for ever."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from typing import TextIO

LOG_BYTES = 4 * 2**20  # then the file becomes name.log.1, in place of the one before
COLORS = (36, 35, 33, 32, 34)


class Log:
    """The lines of one program. Give it bytes as they come; it cuts them into lines."""

    def __init__(self, folder: Path, name: str, terminal: Terminal | None) -> None:
        self.path = folder / f"{name}.log"
        self.name = name
        self.terminal = terminal
        self.last: deque[str] = deque(maxlen=20)
        self._rest = b""
        self._file = self.path.open("ab")

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > 65536:  # a program that never ends its line
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self.line(line.decode(errors="replace").rstrip("\r"))

    def line(self, text: str) -> None:
        if text.strip():
            self.last.append(text.strip())
        self._file.write(text.encode() + b"\n")
        self._file.flush()
        if self._file.tell() > LOG_BYTES:
            self._turn()
        if self.terminal:
            self.terminal.line(self.name, text)

    def flush(self) -> None:
        """Take what came without an end of line as a line."""
        if self._rest:
            self.feed(b"\n")

    def close(self) -> None:
        self.flush()
        self._file.close()

    def _turn(self) -> None:
        self._file.close()
        self.path.replace(self.path.with_suffix(".log.1"))
        self._file = self.path.open("ab")


class Terminal:
    """One line at a time, each behind the name of who says it; in color if somebody looks."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._colored = self.stream.isatty()
        self._names: dict[str, int] = {}

    def line(self, name: str, text: str) -> None:
        color = COLORS[self._names.setdefault(name, len(self._names)) % len(COLORS)]
        label = f"{name:<8} |"
        self._write(f"\033[{color}m{label}\033[0m {text}\n" if self._colored else f"{label} {text}\n")

    def say(self, text: str) -> None:
        """The launcher's own word."""
        self.line("up", text)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (BrokenPipeError, ValueError, OSError):
            self.stream = open("/dev/null", "w")  # noqa: SIM115  nobody reads any more; the logs stay
