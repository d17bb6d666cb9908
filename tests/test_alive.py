"""That a worker and the beat go round can be seen from outside, also while they wait for Valkey."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wait import until

NOWHERE = "redis://127.0.0.1:9/0"


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "tir_console.up.work", "control", "1"),
        ("-m", "celery", "-A", "tir_console", "beat", "--scheduler", "tir_console.alive:Scheduler", "--schedule"),
    ],
)
def test_what_waits_for_valkey_is_alive(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "alive"
    given = os.environ | {"ALIVE_FILE": str(file), "VALKEY_URL": NOWHERE, "DATA_DIR": str(tmp_path)}
    more = (str(tmp_path / "beat"),) if command[-1] == "--schedule" else ()
    with subprocess.Popen([sys.executable, *command, *more], env=given, stderr=subprocess.DEVNULL) as process:
        try:
            until(file.exists, seconds=60, what="a first sign")
            os.utime(file, (0, 0))
            until(lambda: file.stat().st_mtime, seconds=60, what="another one")
        finally:
            process.send_signal(signal.SIGKILL)
