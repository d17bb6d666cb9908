"""Does requirements.lock agree with pyproject.toml, and does it name no host? Prints what does not."""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def locked(text: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)}


def problems(text: str) -> list[str]:
    """One line for each disagreement."""
    versions = locked(text)
    found = []
    for requirement in wanted():
        version = versions.get(canonicalize_name(requirement.name))
        if version is None:
            found.append(f"{requirement.name} is in pyproject.toml and not in requirements.lock")
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f"requirements.lock has {requirement.name} {version}; pyproject.toml wants {requirement}")
    found += [f"requirements.lock names a host: line {number}" for number in _hosts(text)]
    return found


def _hosts(text: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if "://" in line or "index-url" in line]


if __name__ == "__main__":
    wrong = problems((ROOT / "requirements.lock").read_text())
    print("\n".join(wrong) or "requirements.lock agrees with pyproject.toml")  # noqa: T201
    sys.exit(bool(wrong))
