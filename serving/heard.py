"""What a program says while it runs as a child: passed on line by line, its last lines kept for its end."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from threading import Thread
from typing import IO

KEPT = 400  # lines: the tracebacks of each of its processes, after one another
END_SECONDS = 0.5  # a grandchild may keep the pipes open


class Heard:
    """The lines of one child, of both its streams in the order they came in."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT)
        self._threads: list[Thread] = []

    def listen(self, child: subprocess.Popen[bytes]) -> None:
        """Pass on what comes, each stream to ours."""
        for source, to in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
            if source is not None:
                thread = Thread(target=self._copy, args=(source, to.buffer), daemon=True)
                thread.start()
                self._threads.append(thread)

    def end(self) -> None:
        """Wait for what is still on its way."""
        for thread in self._threads:
            thread.join(END_SECONDS)

    def _copy(self, source: IO[bytes], to: IO[bytes]) -> None:
        for line in source:
            self.lines.append(line.decode(errors="replace").rstrip())
            to.write(line)
            to.flush()
