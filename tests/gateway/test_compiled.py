"""Compiled code runs only where it was made of the very sources that lie there."""

import shutil
import sys
from pathlib import Path

import pytest

from gateway import compiled, compiling


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is compiled, and a cache of its own that says it was."""
    root = tmp_path / "sources"
    for name in (*(f"gateway/{path.name}" for path in compiled.HERE.glob("*.py")), *compiled.BESIDE):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(compiled.HERE.parent / name, root / name)
    monkeypatch.setattr(compiled, "HERE", root / "gateway")
    monkeypatch.setattr(compiled, "cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(compiled, "runs", False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("GATEWAY_COMPILED", "yes")
    compiled.folder().mkdir(parents=True)
    return root


def preferred() -> list[str]:
    path = ["here"]
    compiled.prefer(path)
    return path


@pytest.mark.usefixtures("sources")
def test_it_goes_before_the_sources_it_was_made_of() -> None:
    assert preferred() == [str(compiled.folder() / "gateway"), "here"]
    assert compiled.runs


@pytest.mark.parametrize("name", ["gateway/line.py", "gateway/server.py", "monitoring/histogram.py"])
def test_a_change_of_any_source_runs_the_sources(sources: Path, name: str) -> None:
    with (sources / name).open("a") as file:
        file.write("\n")
    assert preferred() == ["here"]
    assert not compiled.runs


@pytest.mark.usefixtures("sources")
def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_COMPILED", "no")
    assert preferred() == ["here"]


@pytest.mark.parametrize(
    ("compiler", "says"), [(None, "apt-get install gcc"), ("/usr/bin/cc", "mypyc is not installed")]
)
@pytest.mark.usefixtures("sources")
def test_without_the_tools_it_says_what_is_missing_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    compiler: str | None,
    says: str,
) -> None:
    (tmp_path / "cache").rename(tmp_path / "away")
    monkeypatch.setattr(shutil, "which", lambda _: compiler)
    monkeypatch.setattr(compiling, "find_spec", lambda _: None)
    assert compiling.main() == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_defaults_that_a_compiled_class_would_lose_are_found() -> None:
    source = """
class One:
    __slots__ = ("a",)
    number = 1
    text: str | None = None
    headers: tuple[int, ...] = ()
    made = list()

@dataclass
class Two:
    headers: tuple[int, ...] = ()
"""
    assert list(compiling.class_defaults(source)) == [6, 7]
