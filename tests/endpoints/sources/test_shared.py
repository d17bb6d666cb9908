"""A folder of models that pods share: a fetch makes room in it, and what may be in use stays whatever happens."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endpoints.sources import SourceProblem, shared
from endpoints.sources import store as storage
from endpoints.sources.__main__ import main
from endpoints.sources.shared import Shared
from tests.endpoints.sources.conftest import LARGE
from tests.hub import Hub, Repo

MIB, HOUR = 1 << 20, 3600.0
NOW = time.time()
Usage = namedtuple("Usage", "total used free")
Tell = Callable[..., None]
Disk = Callable[[int], None]


def name(letter: str) -> str:
    return hashlib.sha256(letter.encode()).hexdigest()[:32]


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    claim = tmp_path / "claim"
    claim.mkdir()
    return claim


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """`tell("a", "b", hours=2)`: the list that names these, made so long ago."""

    def tell(*letters: str, hours: float = 0) -> None:
        listed = shared.written(frozenset(map(name, letters)), NOW - hours * HOUR)
        (tmp_path / "in-use.json").write_text(listed)

    return tell


@pytest.fixture
def disk(claim: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """`disk(10)`: the claim has so many MiB."""

    def disk(size: int) -> None:
        def usage(_: Any) -> Usage:
            used = sum(path.stat().st_size for path in claim.rglob("*") if path.is_file())
            return Usage(size * MIB, used, size * MIB - used)

        monkeypatch.setattr(shutil, "disk_usage", usage)
        monkeypatch.setattr(storage, "SPARE", 0)

    return disk


def put(claim: Path, letter: str, size: int, hours: float) -> Path:
    """A model of so many MiB, last started so long ago."""
    folder = claim / name(letter)
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"x" * size * MIB)
    os.utime(folder, (NOW - hours * HOUR, NOW - hours * HOUR))
    return folder


def fetched(claim: Path, letter: str, size: int) -> Shared:
    """Have one more, as a source does that looks for room first."""
    into = claim / name(letter)
    one = Shared(into, claim.parent / "in-use.json")

    def fetch() -> Path:
        storage.require_space(into, size * MIB, "The model")
        (into / "model.bin").write_bytes(b"y" * size * MIB)
        return into / "model.bin"

    one.bring(fetch, size * MIB, lambda: None)
    return one


def there(claim: Path) -> set[str]:
    known = {name(letter): letter for letter in "abcdefz"}
    return {known[path.name] for path in claim.iterdir() if path.name in known}


def test_what_was_started_longest_ago_goes_and_only_as_much_as_is_needed(
    claim: Path, tell: Tell, disk: Disk
) -> None:
    for letter, hours in (("a", 5), ("b", 9), ("c", 7)):
        put(claim, letter, 2, hours)
    (claim / "lost+found").mkdir()
    tell()
    disk(8)
    one = fetched(claim, "z", 5)
    assert there(claim) == {"a", "z"}
    room = one.room()
    assert (room.total, room.free, room.models, room.size) == (8 * MIB, MIB, 2, 7 * MIB)
    assert (room.removed, room.removed_size) == (2, 4 * MIB)
    assert (claim / "lost+found").is_dir()
    assert not list((claim / ".tir/removed").iterdir())


def test_what_is_in_use_stays_and_who_finds_no_room_is_told_how_much_there_is(
    claim: Path, tell: Tell, disk: Disk
) -> None:
    put(claim, "a", 3, hours=99)
    put(claim, "b", 1, hours=99)
    tell("a")
    disk(5)
    with pytest.raises(SourceProblem) as refused:
        fetched(claim, "z", 4)
    assert refused.value.code == "disk_full"
    for words in (
        "1 MiB of 5 MiB are free",
        "needs 4 MiB more",
        "Only 1 MiB of what lies there may go",
        "give the claim more storage",
    ):
        assert words in refused.value.message
    assert len(refused.value.message) < 360  # the endpoint's page shows 400 characters of a fetch's last words
    assert there(claim) >= {"a", "b"}, "what can't make enough room isn't lost in vain"


@pytest.mark.parametrize("hours", [0.0, 48.0])
def test_a_list_of_any_age_costs_nobody_the_model_that_a_later_pod_started(
    claim: Path, tell: Tell, disk: Disk, hours: float
) -> None:
    put(claim, "a", 3, hours=hours - 0.01)  # after the list, or just before by a clock that differs
    put(claim, "b", 3, hours=hours + 0.05)
    tell(hours=hours)
    disk(7)
    with pytest.raises(SourceProblem, match="was started since"):
        fetched(claim, "z", 3)
    assert there(claim) >= {"a", "b"}


def test_without_a_list_nothing_goes(claim: Path, disk: Disk) -> None:
    put(claim, "a", 3, hours=99)
    disk(4)
    with pytest.raises(SourceProblem, match="hasn't told yet what is in use"):
        fetched(claim, "z", 3)
    assert "a" in there(claim)


def test_one_whose_lock_is_held_is_being_fetched_and_stays(claim: Path, tell: Tell, disk: Disk) -> None:
    put(claim, "a", 2, hours=99)
    put(claim, "b", 2, hours=50)
    tell()
    disk(5)
    with storage.locked(claim / ".tir", name("a")):
        fetched(claim, "z", 3)
    assert there(claim) == {"a", "z"}


def test_a_start_that_comes_while_room_is_made_is_not_missed(
    claim: Path, tell: Tell, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put(claim, "a", 2, hours=99)
    tell()
    disk(3)
    looked = Shared(claim / name("z"), claim.parent / "in-use.json")._units()
    monkeypatch.setattr(Shared, "_units", lambda self: looked)
    os.utime(folder)  # by the fetch of a pod, since it was looked at
    with pytest.raises(SourceProblem, match="is full"):
        fetched(claim, "z", 2)
    assert "a" in there(claim)


def test_a_disk_that_runs_full_all_the_same_gets_room_and_goes_on(claim: Path, tell: Tell) -> None:
    put(claim, "a", 1, hours=99)
    tell()
    into, tries = claim / name("z"), []

    def fetch() -> Path:
        tries.append(there(claim))
        if len(tries) == 1:
            raise OSError(28, "No space left on device")
        return into

    Shared(into, claim.parent / "in-use.json").bring(fetch, 0, lambda: None)
    assert tries == [{"a", "z"}, {"z"}]


def test_what_a_removal_left_that_was_cut_off_goes_next_time(claim: Path, tell: Tell, disk: Disk) -> None:
    half = claim / ".tir/removed/half"
    half.mkdir(parents=True)
    (half / "model.bin").write_bytes(b"x" * 2 * MIB)
    put(claim, "a", 1, hours=99)
    tell()
    disk(4)
    fetched(claim, "z", 3)
    assert not half.exists()


def test_the_command_makes_room_for_its_model_and_reports_how_full_it_is(
    claim: Path,
    tell: Tell,
    hub: Hub,
    tmp_path: Path,
    disk: Disk,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.repos["lab/folder"] = Repo({"a.gguf": LARGE})
    put(claim, "a", 2, hours=99)
    tell()
    disk(2)
    source = {"kind": "huggingface", "revision": "main", "hub": hub.url, "model_id": "lab/folder"}
    asked = {"source": source | {"files": ["a.gguf"], "size": len(LARGE)}, "in_use": str(tmp_path / "in-use.json")}
    (tmp_path / "source.json").write_text(json.dumps(asked | {"report": str(tmp_path / "report")}))
    command = [str(tmp_path / "source.json"), str(claim / name("z"))]
    assert main(command) == 0
    assert there(claim) == {"z"}
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((tmp_path / "report").read_text()) == last
    assert (last["cache"]["models"], last["cache"]["removed_size"]) == (1, 2 * MIB)
    before = (claim / name("z")).stat().st_mtime
    os.utime(claim / name("z"), (0, 0))
    assert main(command) == 0
    assert (claim / name("z")).stat().st_mtime >= before, "each start counts as a use"
