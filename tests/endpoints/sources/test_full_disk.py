"""A disk runs full in the middle of a fetch: that is said, nothing half is taken for whole, and it goes on."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoints.sources import SourceProblem
from endpoints.sources.__main__ import main
from tests.endpoints.sources.conftest import LARGE, Ask, ignore
from tests.hub import Hub

FILE = "tiny.Q4_K_M.gguf"
UNLIMITED = 1 << 60
# At once, in the middle, and behind the last byte, where what the store notes about it finds no room.
ROOMS = [0, 100_000, len(LARGE) + 10]


class Disk:
    """`room`: bytes that fit yet; beyond them every write ends as `refusal` says."""

    def __init__(self) -> None:
        self.room, self.refusal = UNLIMITED, errno.ENOSPC

    def full(self) -> OSError:
        return OSError(self.refusal, os.strerror(self.refusal))


class Written:
    """A file that is open for writing on it."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def write(self, data: Any) -> int:
        fits = data[: self.disk.room]
        self.file.write(fits)
        self.disk.room -= len(fits)
        if len(fits) < len(data):
            raise self.disk.full()
        return len(data)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk, usual = Disk(), Path.open

    def opened(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        file = usual(path, mode, *more, **named)
        return file if mode.startswith("r") else Written(file, disk)

    monkeypatch.setattr(Path, "open", opened)
    yield disk
    monkeypatch.undo()


@pytest.mark.parametrize("refusal", [errno.ENOSPC, errno.EDQUOT], ids=["full", "quota"])
@pytest.mark.parametrize("room", ROOMS)
def test_a_fetch_says_so_and_goes_on_where_it_ended_once_there_is_room(
    ask: Ask, hub: Hub, disk: Disk, tmp_path: Path, room: int, refusal: int
) -> None:
    disk.room, disk.refusal = room, refusal
    with pytest.raises(SourceProblem) as caught:
        ask("lab/tiny-GGUF").fetch(tmp_path, ignore, [FILE])
    assert caught.value.code == "disk_full"
    assert "Free some space" in caught.value.message
    assert not list(tmp_path.glob(f"hub/**/{FILE}"))
    whole = [blob for blob in tmp_path.glob("blobs/??/*") if len(blob.name) == 64]
    assert all(blob.read_bytes() == LARGE for blob in whole)
    assert bool(whole) == (room > len(LARGE))
    disk.room = UNLIMITED
    assert ask("lab/tiny-GGUF").fetch(tmp_path, ignore, [FILE]).read_bytes() == LARGE
    ranges = [asked.headers.get("Range", "") for asked in hub.asked("/cdn/")]
    assert ranges == (["", f"bytes={room}-"] if 0 < room < len(LARGE) else [""] * len(ranges))


def test_bytes_that_the_disk_took_and_then_lost_are_fetched_anew(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk over a network may say only when it is asked to keep them that there was no room."""

    def lost(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    source = ask("lab/tiny-GGUF")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lost)
        with pytest.raises(SourceProblem) as caught:
            source.fetch(tmp_path, ignore, [FILE])
    assert caught.value.code == "disk_full"
    assert not list((tmp_path / "partial").iterdir())
    assert source.fetch(tmp_path, ignore, [FILE]).read_bytes() == LARGE


@pytest.mark.parametrize("room", [*ROOMS, len(LARGE) + 180])  # the last: only its mark finds no room
def test_the_fetching_container_says_so_and_goes_on_too(
    hub: Hub, disk: Disk, tmp_path: Path, capsys: pytest.CaptureFixture[str], room: int
) -> None:
    spec, into = tmp_path / "source.json", tmp_path / "model"
    source = {"kind": "huggingface", "model_id": "lab/tiny-GGUF", "revision": "main", "hub": hub.url}
    spec.write_text(json.dumps({"source": source | {"files": [FILE]}}))
    disk.room = room
    assert main([str(spec), str(into)]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["code"] == "disk_full"
    assert "Free some space" in last["error"]
    disk.room = UNLIMITED
    assert main([str(spec), str(into)]) == 0
    assert (into / FILE).read_bytes() == LARGE
    assert not (into / ".tir").exists()
