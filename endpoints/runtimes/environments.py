"""Local environments: what a pre-built container has inside, as a virtual environment on this machine.

One per engine, version and requirements, named by a digest of them, so that every instance of every endpoint that
needs the same shares it. It counts as whole only with its mark, which is written last.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from endpoints.runtimes.base import Command, Rejected, Report, Unavailable

CODE = Path(__file__).resolve().parents[2]
LISTS = CODE / "serving" / "requirements"
MARK = ".whole"
HOW = ("--no-progress", "--link-mode", "hardlink", "--compile-bytecode")  # instances write no bytecode
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")  # in capitals or not
INDEXES = ("UV_", "PIP_")  # how this machine is set up to reach a package index
PASSING = ("error sending request", "failed to fetch", "timed out", "dns error", "connection refused")
WORDS = 6  # last lines that an error repeats
TICK = 2.0  # seconds of silence after which it is asked whether anybody still waits


class Environments:
    """Those of one installation, under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def python_of(self, command: Command) -> Path | None:
        """The interpreter that runs this, once its environment is whole."""
        home = self._home(command)
        return home / "bin" / "python" if (home / MARK).exists() else None

    def build(self, command: Command, report: Report) -> str:
        """Make the environment unless it is there. Rejected when its packages can't be had as they are named."""
        home = self._home(command)
        with self._locked(home.name, report) as lock:
            if (home / MARK).exists():
                return "The environment is there already."
            wanted = home.with_suffix(".txt")
            wanted.write_text(command.requirements, encoding="utf-8")
            try:
                shutil.rmtree(home, ignore_errors=True)  # of a build that was cut off
                _run([_uv(), "venv", "--no-project", "--python", sys.executable, str(home)], report, lock)
                files = [part for path in (_list_of(command), wanted) for part in ("-r", str(path))]
                install = [_uv(), "pip", "install", *HOW]
                _run([*install, "--python", str(home / "bin" / "python"), *files], report, lock)
            finally:
                wanted.unlink(missing_ok=True)
            (home / MARK).touch()
        return f"Environment for {' '.join(filter(None, (command.engine, command.version)))} built."

    def _home(self, command: Command) -> Path:
        parts = (sysconfig.get_platform(), sys.version, *_texts(_list_of(command)), command.requirements)
        return self.root / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]

    @contextmanager
    def _locked(self, name: str, report: Report) -> Iterator[int]:
        """One build of it at a time; the descriptor of the lock, which an installer holds beyond our own end."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.root / f"{name}.lock").open("w") as file:
            said = "Waiting for another build of the same environment."
            while not _taken(file.fileno()):
                report(said)
                said = ""
                time.sleep(TICK)
            yield file.fileno()


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _list_of(command: Command) -> Path:
    """The engine's own packages. Rejected for an engine that needs a container."""
    named = [LISTS / f"{command.engine}-{command.version}.txt", LISTS / f"{command.engine}.txt"]
    for path in named if command.version else named[1:]:
        if path.is_file():
            return path
    name = " ".join(filter(None, (command.engine, command.version)))
    raise Rejected(f"{name} can't run as a local process: it needs a container")


def _texts(path: Path) -> Iterator[str]:
    """A list and those that it takes in."""
    text = path.read_text(encoding="utf-8")
    yield text
    for line in text.splitlines():
        if line.startswith("-r "):
            yield from _texts(path.parent / line.removeprefix("-r ").strip())


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise Rejected("uv isn't installed here, and no environment can be built without it. Run: pip install uv")
    return found


def _run(argv: list[str], report: Report, lock: int) -> None:
    """Run it with its lines reported. What `report` raises ends it, with all that it had started."""
    said: deque[str] = deque(maxlen=WORDS)
    with subprocess.Popen(
        argv,
        env=_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
        start_new_session=True,
    ) as process:
        try:
            for text in _lines(process):
                if text:
                    said.append(text)
                report(text)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        words = " ".join(text.strip() for text in said)
        if any(sign in words.lower() for sign in PASSING):
            raise Unavailable(f"The packages can't be fetched now: {words}")
        raise Rejected(f"The environment can't be built: {words}")


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """What it prints, line by line, with "" now and then while it says nothing."""
    assert process.stdout is not None  # noqa: S101 - it was asked for
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(TICK):
                if process.poll() is not None:  # what it left behind may keep the pipe open
                    break
                yield ""
                continue
            if not (piece := os.read(process.stdout.fileno(), 1 << 16)):
                break
            *lines, rest = (rest + piece).split(b"\n")
            yield from (text for line in lines if (text := line.decode(errors="replace").rstrip()))
    if text := rest.decode(errors="replace").rstrip():
        yield text


def _environ() -> dict[str, str]:
    """What an installer may know of this process's environment: nothing of the console's."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in KEPT or name.upper() in PROXIES or name.startswith(INDEXES)
    }
