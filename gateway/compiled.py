"""Which code of the hot path runs: what `gateway.compiling` made of these very sources, else the sources as such.

Every `import gateway` asks this, so it is quick and knows nothing of compilers.
"""

import hashlib
import os
import sys
import sysconfig
from pathlib import Path

HOT = (
    *("heads", "framing", "line", "call", "errors", "client", "admit", "auth", "core", "routes", "rewrite"),
    *("exchange", "passing", "passage", "answer", "pool", "upstream", "sse", "usage", "quota", "share", "cells"),
    *("meter", "spool", "totals", "ended", "passport", "metrics", "access_log", "telemetry", "bodies"),
    *("queue", "balance", "behind", "websocket", "tunnel", "app", "awake"),
)
BESIDE = ("accounts/claims.py", "monitoring/histogram.py", "monitoring/redact.py", "monitoring/remembering.py")
OFF = {"0", "false", "no", "off"}
HERE = Path(__file__).resolve().parent

runs = False  # the compiled code, in this process


def prefer(path: list[str]) -> None:
    """Put compiled code first on the package's path, where there is any of the sources as they are now."""
    if wanted() and cache().is_dir():
        home = folder()
        if home.is_dir():
            use(path, str(home))


def wanted() -> bool:
    return os.environ.get("GATEWAY_COMPILED", "").strip().lower() not in OFF


def use(path: list[str], home: str) -> None:
    global runs  # noqa: PLW0603 (told once, while the package is imported)
    path.insert(0, os.path.join(home, "gateway"))
    sys.path.append(home)  # for what all compiled modules share
    runs = True


def cache() -> Path:
    return Path(sys.prefix) / "tir-compiled"


def folder() -> Path:
    """Where the compiled code of these sources is, once it is made."""
    return cache() / digest()


def digest() -> str:
    """Of all that compiled code depends on: sources, whose types are built into it, and this Python."""
    seen = hashlib.sha256(str(sysconfig.get_config_var("SOABI")).encode())
    for path in [*sorted(HERE.glob("*.py")), *(HERE.parent / name for name in BESIDE)]:
        seen.update(b"%b %d\n" % (path.name.encode(), path.stat().st_size))
        seen.update(path.read_bytes())
    return seen.hexdigest()[:20]
