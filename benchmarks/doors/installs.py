"""Peers from PyPI, each in a virtual environment of its own, outside of this repository."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WITHIN = 300  # seconds for one installation


class Missing(Exception):
    """This peer can't run here; the message says why."""


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(home) / "tir-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def installed(requirement: str) -> Path:
    """The folder of programs of an environment that has this requirement, made now if it is not there.
    Missing when it can't be had."""
    home = cache() / requirement.replace("[", "-").replace("]", "").replace("==", "-")
    mark = home / "installed"
    if not mark.exists():
        with _locked():
            if not mark.exists():
                print(f"Installing {requirement} …", file=sys.stderr, flush=True)
                uv = _uv()
                _run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(home)])
                _run([uv, "pip", "install", "-q", "--python", str(home / "bin" / "python"), requirement])
                mark.touch()
    return home / "bin"


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    own = cache() / "uv" / "bin" / "uv"
    found = shutil.which("uv") or next((str(one) for one in (beside, own) if one.exists()), None)
    if found is None:
        _run([sys.executable, "-m", "venv", str(own.parent.parent)])
        _run([str(own.with_name("python")), "-m", "pip", "install", "-q", "uv"])
    return found or str(own)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=WITHIN)
    except subprocess.CalledProcessError as failed:
        rows = (failed.stderr or failed.stdout).strip().splitlines()
        raise Missing(f"can't be installed: {rows[-1][:200] if rows else failed}") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"can't be installed within {WITHIN} s") from None


@contextmanager
def _locked() -> Iterator[None]:
    """Two benchmarks at once don't install the same thing twice."""
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
