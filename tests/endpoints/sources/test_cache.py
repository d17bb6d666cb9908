"""Making room: the longest unused goes first, what is in use or shared stays, and nobody is surprised by it."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from endpoints.sources import cache
from endpoints.sources import store as storage

HOUR, KIB = 3600.0, 1024


def unit(store: Path, name: str, *contents: bytes, idle: float) -> str:
    """hub/<name>/main with these files, last used so many hours ago."""
    home = store / "hub" / name / "main"
    for number, content in enumerate(contents):
        keep(store, content, home / f"weights/{number}.bin")
    used(store, name, idle)
    return f"hub/{name}/main"


def used(store: Path, name: str, idle: float) -> None:
    then = time.time() - idle * HOUR
    os.utime(store / "hub" / name / "main", (then, then))


def keep(store: Path, content: bytes, place: Path) -> Path:
    sha256 = hashlib.sha256(content).hexdigest()
    partial = storage.partial_path(store, sha256)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(content)
    blob = storage.blob_path(store, sha256)
    storage.link(blob if blob.exists() else storage.keep(partial, store, sha256), place)
    partial.unlink(missing_ok=True)
    return blob


def room(store: Path, limit: int, *in_use: str) -> list[str]:
    return [gone.path for gone in cache.make_room(store, limit=limit, in_use=in_use, floor=0)]


def test_the_longest_unused_goes_first_and_only_as_much_as_is_needed(tmp_path: Path) -> None:
    old, older, new = (
        unit(tmp_path, name, name.encode() * KIB, idle=idle)
        for name, idle in (("old0", 5), ("oldr", 9), ("new0", 2))
    )
    assert room(tmp_path, 9 * KIB) == [older]
    assert not (tmp_path / older).exists()
    assert {one.path for one in cache.survey(tmp_path).units} == {old, new}
    assert room(tmp_path, 9 * KIB) == []


def test_what_is_in_use_stays_though_nothing_else_can_go(tmp_path: Path) -> None:
    mine = unit(tmp_path, "mine", b"m" * KIB, idle=99)
    assert room(tmp_path, 1, mine) == []
    assert (tmp_path / mine / "weights/0.bin").read_bytes() == b"m" * KIB


def test_what_was_just_used_stays(tmp_path: Path) -> None:
    fresh = unit(tmp_path, "fresh", b"f" * KIB, idle=99)
    cache.claim(tmp_path, tmp_path / fresh / "weights")
    assert room(tmp_path, 1) == []


def test_a_use_that_comes_while_it_is_looked_at_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the survey and the removal somebody begins to fetch into it."""
    one = unit(tmp_path, "one", b"1" * KIB, idle=99)
    looked = cache.survey(tmp_path)
    monkeypatch.setattr(cache, "survey", lambda store: looked)
    cache.claim(tmp_path, tmp_path / one)
    assert room(tmp_path, 1) == []
    assert (tmp_path / one / "weights/0.bin").exists()


def test_a_blob_goes_with_its_last_name(tmp_path: Path) -> None:
    first = unit(tmp_path, "first", b"shared" * KIB, b"own" * KIB, idle=9)
    unit(tmp_path, "second", b"shared" * KIB, idle=5)
    before = cache.survey(tmp_path).size
    assert room(tmp_path, before - 1) == [first]
    blobs = [path.read_bytes() for path in (tmp_path / "blobs").glob("??/*")]
    assert blobs == [b"shared" * KIB]
    assert (tmp_path / "hub/second/main/weights/0.bin").exists()


def test_versions_of_the_registry_are_never_evicted(tmp_path: Path) -> None:
    keep(tmp_path, b"r" * KIB, tmp_path / "registry/7b/model.bin")
    keep(tmp_path, b"n" * KIB, tmp_path / "named/ab/model.gguf")
    for path in ("registry/7b", "named/ab"):
        os.utime(tmp_path / path, (0, 0))
    assert room(tmp_path, 1) == []
    assert [one.path for one in cache.survey(tmp_path).units] == ["named/ab", "registry/7b"]


def test_a_disk_that_runs_low_makes_room_without_a_limit(tmp_path: Path) -> None:
    one = unit(tmp_path, "one", b"1" * KIB, idle=9)
    assert cache.make_room(tmp_path, limit=0, in_use=(), floor=0) == []
    assert [gone.path for gone in cache.make_room(tmp_path, limit=0, in_use=(), floor=1 << 60)] == [one]


def test_every_file_counts_once_and_bytes_are_told(tmp_path: Path) -> None:
    unit(tmp_path, "one", b"1" * KIB, idle=1)
    unit(tmp_path, "two", b"1" * KIB, b"2" * KIB, idle=1)
    seen = cache.survey(tmp_path)
    assert sorted(one.size for one in seen.units) == [KIB, 2 * KIB]
    assert seen.size < 4 * KIB  # two blobs and a few hundred bytes of the store's own
    assert cache.survey(tmp_path / "nowhere").units == ()


def test_what_nobody_can_use_is_tidied_away(tmp_path: Path) -> None:
    named = keep(tmp_path, b"named", tmp_path / "hub/a/b/x")
    lost = keep(tmp_path, b"lost", tmp_path / "hub/a/b/y")
    (tmp_path / "hub/a/b/y").unlink()
    (tmp_path / "removed/half").mkdir(parents=True)
    left = tmp_path / "partial/left"
    left.write_bytes(b"")
    os.utime(left, (0, 0))
    going = tmp_path / "partial/going"
    going.write_bytes(b"")
    cache.tidy(tmp_path)
    assert lost.exists(), "a fetch may be about to name it"
    cache.tidy(tmp_path, now=time.time() + 2 * HOUR)
    assert [path.exists() for path in (named, lost, left, going)] == [True, False, False, True]
    assert not (tmp_path / "removed/half").exists()


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("hub/a--b/0123/sub/model.gguf", "hub/a--b/0123"),
        ("git/x-1/0123", "git/x-1/0123"),
        ("named/ab/model.gguf", "named/ab"),
        ("blobs/ab/abcdef", ""),
        ("hub/a--b", ""),
        ("../elsewhere", ""),
    ],
)
def test_a_path_tells_its_unit(tmp_path: Path, path: str, unit: str) -> None:
    assert cache.unit_of(tmp_path, tmp_path / path) == unit
