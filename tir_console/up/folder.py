"""The data folder: who may read it, who holds it, and the keys it keeps."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tir_console.up.trouble import Trouble

LONGEST_SOCKET = 100  # bytes of a Unix socket's path; systems end at 104 or 108


class Folder:
    """A folder of one installation. As root its parts for PostgreSQL belong to another user, so it may be
    walked through then (0711); otherwise nobody else gets in (0700)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.run = path / "run"
        self.postgres = path / "postgres"

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Create what is missing. Trouble if it can't be written to."""
        folder = cls(path)
        try:
            path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            for part in (folder.logs, folder.run, path / "static"):
                part.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder.run):
                pass
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise Trouble(
                f"The data folder {path} can't be used: {reason}. Set DATA_DIR to a folder you may write to."
            ) from None
        return folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process alone; the system lets go when the process ends, however it ends."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                if problem.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                    raise
                raise Trouble(
                    f"Another `up` (process {self.holder() or 'unknown'}) already runs on {self.path}. "
                    "Stop it first, or set DATA_DIR to another folder."
                ) from None
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            yield
            os.truncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def is_held(self) -> bool:
        """Whether some process holds the folder now."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def lock(self) -> Path:
        return self.path / "up.lock"

    def holder(self) -> int | None:
        """The process that holds the folder, as it wrote itself down; None if none did."""
        try:
            return int(self.lock.read_text())
        except (OSError, ValueError):
            return None

    def sockets(self) -> Path:
        """Where sockets go: `run`, or a private folder elsewhere if that path is too long for one."""
        if len(os.fsencode(self.run / ".s.PGSQL.5432")) <= LONGEST_SOCKET:
            return self.run
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        elsewhere = Path(tempfile.gettempdir()) / f"tir-{os.geteuid()}-{name}"
        elsewhere.mkdir(mode=0o700, exist_ok=True)
        return elsewhere

    def secret_key(self) -> str:
        return self._kept("secret_key", lambda: secrets.token_urlsafe(48))

    def encryption_keys(self) -> str:
        return self._kept("encryption_keys", lambda: base64.urlsafe_b64encode(os.urandom(32)).decode())

    def write(self, name: str, text: str) -> None:
        """Replace a file of `run` whole, so that a reader never sees half of it; only we may read it."""
        target = self.run / name
        beside = target.with_name(f".{name}.new")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        beside.replace(target)

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        path = self.path / name
        with contextlib.suppress(FileNotFoundError):
            kept = path.read_text(encoding="ascii").strip()
            if kept:
                return kept
        beside = path.with_name(f".{name}.new")
        beside.unlink(missing_ok=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(value := make())
            file.flush()
            os.fsync(file.fileno())  # a key lost with the power is every secret lost
        beside.replace(path)
        return value
