"""The variables under which everything runs, and how other commands of this machine learn them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tir_console.up.folder import Folder
from tir_console.up.options import BASE_DIR, Options

NAME = "environment.json"
THREE_SMALL_MACHINES = 3 * 2  # vCPUs


def settings_of(options: Options, folder: Folder, *, database_url: str, valkey_url: str) -> dict[str, str]:
    """Every variable that `up` decides. What the caller had set stays as it was."""
    given = os.environ
    return {
        "DATA_DIR": str(folder.path),
        "DATABASE_URL": database_url,
        "VALKEY_URL": valkey_url,
        "SECRET_KEY": given.get("SECRET_KEY") or folder.secret_key(),
        "ENCRYPTION_KEYS": given.get("ENCRYPTION_KEYS") or folder.encryption_keys(),
        "CONSOLE_HOST": options.console.host,
        "CONSOLE_PORT": str(options.console.port),
        "GATEWAY_HOST": options.gateway.host,
        "GATEWAY_PORT": str(options.gateway.port),
        "CONSOLE_URL": given.get("CONSOLE_URL") or options.console.url,
        "GATEWAY_URL": given.get("GATEWAY_URL") or options.gateway.url,
        "CPU_OVERCOMMIT": given.get("CPU_OVERCOMMIT") or overcommit(os.cpu_count() or 1),
    }


def overcommit(cores: int) -> str:
    """So many promised cores for each real one that three of the smallest machines find room."""
    return f"{max(1.0, THREE_SMALL_MACHINES / cores):g}"


def publish(folder: Folder, settings: dict[str, str]) -> None:
    """Leave the variables where `adopt` finds them; only we may read them."""
    folder.write(NAME, json.dumps(settings))


def withdraw(folder: Folder) -> None:
    (folder.run / NAME).unlink(missing_ok=True)


def adopt() -> None:
    """Let `manage.py <command>` in another terminal speak to what `up` runs here; what is set already wins."""
    if "DATABASE_URL" in os.environ:
        return
    data_dir = Path(os.environ.get("DATA_DIR") or BASE_DIR / "data").expanduser()
    try:
        settings = json.loads((data_dir / "run" / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    for name, value in settings.items():
        os.environ.setdefault(name, value)
