"""A model's own packages, installed before it is loaded: for places where no image is built for it."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import deque
from pathlib import Path

from serving.config import EngineConfig, Refusal

FILE = "requirements.txt"
WORDS, LONGEST = 4, 120  # last lines that a refusal repeats, and characters of each
AWAY = re.compile(r"WARNING: Retrying .* after connection broken by '(.*)': ")
GIVEN_UP = ("ERROR", "WARNING", "Could not fetch")
OBJECT = re.compile(r"<[^>]*>:? ?")  # as Python writes one
QUIET = ("--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "off")


def install(config: EngineConfig) -> None:
    """Bring what the folder's requirements.txt names and the engine hasn't, where `packages` asks for that.

    Refusal 65 with the installer's last lines. The engine's own environment may be read-only: another one stands
    before it, in `cache` or a folder of this process's own.
    """
    wanted = Path(config.model) / FILE
    if not config.packages or not wanted.is_file():
        return
    home = Path(config.cache or tempfile.mkdtemp()) / "packages"
    _run([sys.executable, "-m", "venv", "--without-pip", str(home)])
    engine = sysconfig.get_path("purelib")
    place = home / Path(engine).relative_to(sys.prefix)
    (place / "engine.pth").write_text(f"{engine}\n", encoding="utf-8")
    python = str(home / "bin" / "python")
    _run([sys.executable, "-m", "pip", "--python", python, "install", *QUIET, "-r", str(wanted)])
    sys.path.insert(0, str(place))


def _run(argv: list[str]) -> None:
    """With what it says in this instance's log."""
    said: deque[str] = deque(maxlen=WORDS)
    away = ""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            sys.stderr.write(line)
            if broken := AWAY.match(line):
                away = f" (an index was not reached: {OBJECT.sub('', broken[1])[:LONGEST]})"
                continue
            if not line.startswith(GIVEN_UP):
                away = ""  # it was reached in the end
            said.append(line.strip()[:LONGEST])
    if process.returncode:
        raise Refusal(65, f"the packages in {FILE} can't be installed{away}: {' '.join(said)}")
