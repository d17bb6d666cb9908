"""The README's table names every variable that is read, and none that isn't."""

import re
from pathlib import Path

from tir_console.up.options import BASE_DIR

PACKAGES = ("tir_console", "accounts", "endpoints", "gateway", "monitoring", "billing")
READS = (
    re.compile(r"""environ(?:\.get|\.setdefault)?[(\[]\s*["']([A-Z][A-Z0-9_]+)["']"""),
    re.compile(r"""env\.(?:text|flag|number|integer|words|time_zone|choice)\(\s*"([A-Z][A-Z0-9_]+)\""""),
    re.compile(r"""(?:getenv|given\.get)\(\s*"([A-Z][A-Z0-9_]+)\""""),
    re.compile(r"""_address\(environ, "([A-Z]+)\""""),
)


def read_somewhere() -> set[str]:
    names: set[str] = set()
    for package in PACKAGES:
        for path in (BASE_DIR / package).rglob("*.py"):
            text = path.read_text()
            names |= {name for pattern in READS for name in pattern.findall(text)}
    doors = {name for name in names if name in {"CONSOLE", "GATEWAY"}}
    pairs = {f"{door}_{part}" for door in doors for part in ("HOST", "PORT")}
    return {name for name in names - doors if not name.startswith("TIR_")} | pairs


def in_the_table() -> set[str]:
    readme = Path(BASE_DIR / "README.md").read_text()
    return set(re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", readme, re.M))


def test_the_table_of_variables_is_complete_and_true() -> None:
    assert read_somewhere() == in_the_table()
