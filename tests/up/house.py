"""One `up` of a test: its own data folder, its own ports, its words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.wait import until
from tir_console.up.options import BASE_DIR
from tir_console.up.ports import free_port
from tir_console.up.program import answers

DECIDED_BY_UP = {
    *("DATABASE_URL", "VALKEY_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "CONSOLE_URL", "GATEWAY_URL"),
    *("DJANGO_SETTINGS_MODULE", "SECURE_SSL_REDIRECT"),
}


@dataclass
class House:
    """`start` runs `command` in the root of the repository, in front of its own data folder."""

    data: Path
    console: int = field(default_factory=free_port)
    gateway: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in DECIDED_BY_UP}
        own = {
            "DATA_DIR": str(self.data),
            "CONSOLE_PORT": str(self.console),
            "GATEWAY_PORT": str(self.gateway),
        }
        return kept | own

    def start(self, *command: str) -> None:
        with self.said_file.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, *command], cwd=BASE_DIR, env=self.environ(), stdout=said, stderr=said, text=True
            )

    def stage(self, **wishes: object) -> None:
        self.start("-m", "tests.up.stage", json.dumps(wishes))

    def run(self, *command: str, seconds: float = 180.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=BASE_DIR,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    @property
    def said_file(self) -> Path:
        return self.data.with_name(f"{self.data.name}.said")

    @property
    def said(self) -> str:
        return self.said_file.read_text()

    def wait_ready(self, seconds: float = 240.0) -> None:
        """Until it has printed its last word of welcome; AssertionError with what it said if it ended first."""

        def look() -> bool:
            assert self.process
            assert self.process.poll() is None, self.said
            return "\nData " in self.said

        until(look, seconds=seconds, what="up to be ready")

    def wait_said(self, text: str, seconds: float = 180.0) -> None:
        until(lambda: text in self.said, seconds=seconds, what=f"{text!r} in the output")

    def end(self, number: signal.Signals = signal.SIGINT, seconds: float = 180.0) -> int:
        """Its exit status."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def healthy(self, port: int) -> bool:
        return answers(f"http://127.0.0.1:{port}/healthz")

    def processes(self) -> dict[str, int]:
        """Process numbers by name, as `up` wrote them down."""
        entries = json.loads((self.data / "run" / "processes.json").read_text())
        return {name: entry["pid"] for name, entry in entries.items()}

    def clean(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
