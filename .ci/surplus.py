"""The packages of this environment that run nothing: tests, the gate and the compiler needed them. One a line."""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
KEPT = {"local"}  # the extras that a console runs with


def needed() -> set[str]:
    """What the project runs with, and what that needs in turn."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (project["optional-dependencies"][extra] for extra in KEPT)
    waiting = [Requirement(line) for group in (project["dependencies"], *extras) for line in group]
    seen: set[tuple[str, str]] = set()
    while waiting:
        one = waiting.pop()
        for extra in ("", *one.extras):
            if (key := (canonicalize_name(one.name), extra)) not in seen:
                seen.add(key)
                waiting += _of(one.name, extra)
    return {name for name, _ in seen}


def _of(name: str, extra: str) -> list[Requirement]:
    try:
        lines = distribution(name).requires or ()
    except PackageNotFoundError:  # not for this platform, or overridden
        return []
    every = map(Requirement, lines)
    return [one for one in every if one.marker is None or one.marker.evaluate({"extra": extra})]


if __name__ == "__main__":
    installed = {canonicalize_name(one.metadata["Name"]) for one in distributions()}
    print("\n".join(sorted(installed - needed() - {"pip"})))  # noqa: T201
