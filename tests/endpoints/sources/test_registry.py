"""A registered model is used where it lies, after it was checked to be what was registered."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from endpoints.sources import SourceProblem, import_file, source_for
from endpoints.sources import store as storage
from endpoints.sources.registry import RegistrySource
from tests.model_files import gguf

DATA = gguf()


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "tiny.gguf").write_bytes(DATA)
    stored = import_file(tmp_path / "tiny.gguf", tmp_path / "store")
    files = [{"path": stored.path.name, "size": stored.size, "sha256": stored.sha256}]
    return {"kind": "registry", "version": 3, "path": str(stored.path), "files": files}


def source(spec: dict[str, Any], tmp_path: Path) -> RegistrySource:
    found = source_for(spec, store=tmp_path / "store", token=None, hub="")
    assert isinstance(found, RegistrySource)
    return found


def ignore(done: int, total: int) -> None:
    """Nobody watches."""


def problem_of(spec: dict[str, Any], tmp_path: Path) -> SourceProblem:
    with pytest.raises(SourceProblem) as caught:
        source(spec, tmp_path).check()
    return caught.value


def test_a_registered_version_is_found_with_its_facts(spec: dict[str, Any], tmp_path: Path) -> None:
    found = source(spec, tmp_path).check()
    assert found.revision == "3"
    assert found.default_file == "tiny.gguf"
    assert found.facts is not None
    assert found.facts.architecture == "llama"
    assert found.license == "apache-2.0"


def test_it_is_used_where_it_lies(spec: dict[str, Any], tmp_path: Path) -> None:
    path = source(spec, tmp_path).fetch(tmp_path / "store", ignore, ["tiny.gguf"])
    assert str(path) == spec["path"]


def test_a_path_may_be_relative_to_the_store(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["path"] = str(Path(spec["path"]).relative_to(tmp_path / "store"))
    assert source(spec, tmp_path).fetch(tmp_path, ignore, ["tiny.gguf"]).read_bytes() == DATA


def test_progress_ends_at_the_whole(spec: dict[str, Any], tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    source(spec, tmp_path).fetch(tmp_path, lambda done, total: steps.append((done, total)), ["tiny.gguf"])
    assert steps[0] == (0, len(DATA))
    assert steps[-1] == (len(DATA), len(DATA))


def test_a_missing_file_is_said(spec: dict[str, Any], tmp_path: Path) -> None:
    Path(spec["path"]).unlink()
    problem = problem_of(spec, tmp_path)
    assert (problem.code, problem.field) == ("missing", "model")


def test_a_file_of_another_size_is_said(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["files"][0]["size"] += 1
    assert problem_of(spec, tmp_path).code == "damaged"


def test_a_file_that_was_changed_in_place_is_not_started(spec: dict[str, Any], tmp_path: Path) -> None:
    path = Path(spec["path"])
    changed = path.read_bytes()[:-1] + b"x"
    path.unlink()
    path.write_bytes(changed)
    with pytest.raises(SourceProblem, match="digest differs"):
        source(spec, tmp_path).fetch(tmp_path, ignore, ["tiny.gguf"])


def test_a_file_that_is_no_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "fake.gguf").write_bytes(b"PK\x03\x04" + b"\0" * 99)
    files = [{"path": "fake.gguf", "size": 103, "sha256": None}]
    spec = {"kind": "registry", "version": 1, "path": str(tmp_path / "fake.gguf"), "files": files}
    assert problem_of(spec, tmp_path).code == "not_gguf"


def test_only_declared_files_are_read(spec: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SourceProblem, match="no file"):
        source(spec, tmp_path).read("../../etc/passwd", 0, 10)


def test_a_digest_is_computed_once(spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(spec, tmp_path).fetch(tmp_path, ignore, ["tiny.gguf"])

    def again(*_: Any) -> str:
        raise AssertionError("computed again")

    monkeypatch.setattr(storage, "_sha256", again)
    assert source(spec, tmp_path).fetch(tmp_path, ignore, ["tiny.gguf"]).exists()


def test_a_registered_model_has_the_digest_of_its_bytes(spec: dict[str, Any]) -> None:
    assert spec["files"][0]["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_what_was_verified_before_is_at_hand_without_being_read(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = RegistrySource.of(spec, tmp_path)
    [file] = source.files()
    path = source.fetch(tmp_path, ignore, [file.path])
    monkeypatch.setattr(storage, "_sha256", None)
    assert source.at_hand(tmp_path, [file.path]) == path
    path.touch()
    assert source.at_hand(tmp_path, [file.path]) is None
