"""What the caller may choose: flags, and the variables of the environment."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tir_console.up.trouble import Trouble

BASE_DIR = Path(__file__).resolve().parent.parent.parent
LOOPBACK = "127.0.0.1"
EVERYWHERE = {"0.0.0.0", "::", ""}  # noqa: S104  (compared with, never bound to)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stop-all", action="store_true", help="end the console and every running instance")
    parser.add_argument("--no-input", action="store_true", help="ask nothing")


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the names of the variables that say so."""

    host: str
    port: int
    variable: str

    @property
    def url(self) -> str:
        """How a browser on this machine reaches it."""
        host = LOOPBACK if self.host in EVERYWHERE else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


@dataclass(frozen=True)
class Options:
    data_dir: Path
    console: Address
    gateway: Address
    database_url: str  # empty: start our own
    valkey_url: str  # empty: start our own
    stop_all: bool = False
    ask: bool = True

    @classmethod
    def read(cls, arguments: argparse.Namespace, environ: Mapping[str, str]) -> Options:
        """Trouble for a value that can't be meant."""
        data_dir = Path(environ.get("DATA_DIR") or BASE_DIR / "data").expanduser().absolute()
        return cls(
            data_dir=data_dir,
            console=_address(environ, "CONSOLE", 8000),
            gateway=_address(environ, "GATEWAY", 8080),
            database_url=environ.get("DATABASE_URL", ""),
            valkey_url=environ.get("VALKEY_URL", ""),
            stop_all=arguments.stop_all,
            ask=not arguments.no_input,
        )


def _address(environ: Mapping[str, str], prefix: str, default: int) -> Address:
    variable = f"{prefix}_PORT"
    raw = environ.get(variable) or str(default)
    if not raw.isascii() or not raw.isdigit() or not 0 < int(raw) < 65536:
        raise Trouble(f"{variable} must be a port from 1 to 65535; it is {raw!r}.")
    return Address(environ.get(f"{prefix}_HOST") or LOOPBACK, int(raw), variable)
