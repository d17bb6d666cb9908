"""Each model lies on the disk once, whole, under a name people know."""

import errno
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from endpoints.sources import SourceProblem, import_file
from endpoints.sources import store as storage
from tests.wait import until


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights" * 1000)
    return path


def test_an_imported_file_takes_no_second_place_on_the_disk(model: Path, tmp_path: Path) -> None:
    stored = import_file(model, tmp_path / "store")
    assert stored.path.samefile(model)
    assert stored.path.name == "model.gguf"
    assert stored.size == 7000


def test_importing_again_changes_nothing(model: Path, tmp_path: Path) -> None:
    assert import_file(model, tmp_path / "store") == import_file(model, tmp_path / "store")


def test_the_same_bytes_under_another_name_are_kept_once(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(model.read_bytes())
    first, second = import_file(model, tmp_path / "store"), import_file(copy, tmp_path / "store")
    assert second.path.name == "copy.gguf"
    assert second.path.samefile(first.path)


def test_a_file_on_another_disk_is_copied(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def refuse_from_outside(source: Any, target: Any) -> None:
        if Path(source) == model.resolve():
            raise OSError(errno.EXDEV, "another disk")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse_from_outside)
    stored = import_file(model, tmp_path / "store")
    assert not stored.path.samefile(model)
    assert stored.path.read_bytes() == model.read_bytes()


def test_a_changed_file_gets_a_new_digest(model: Path, tmp_path: Path) -> None:
    before = storage.digest(model, tmp_path / "store")
    model.write_bytes(b"other")
    assert storage.digest(model, tmp_path / "store") != before


def test_a_damaged_marker_is_not_believed(model: Path, tmp_path: Path) -> None:
    before = storage.digest(model, tmp_path / "store")
    for marker in (tmp_path / "store" / "verified").iterdir():
        marker.write_text("{")
    assert storage.digest(model, tmp_path / "store") == before


def test_a_full_disk_says_what_is_needed_and_what_is_free(tmp_path: Path) -> None:
    with pytest.raises(SourceProblem, match=r"big\.gguf needs 1\.05e\+06 GiB|big\.gguf needs .* GiB more on disk"):
        storage.require_space(tmp_path, 1 << 50, "big.gguf")


def test_one_at_a_time_holds_a_lock_and_the_next_is_told_to_wait(tmp_path: Path) -> None:
    waited, entered = threading.Event(), threading.Event()

    def second() -> None:
        with storage.locked(tmp_path, "key", waited.set):
            entered.set()

    with storage.locked(tmp_path, "key"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(30)
        assert not entered.is_set()
    thread.join(30)
    assert entered.is_set()


def test_a_waiting_one_may_give_up(tmp_path: Path) -> None:
    def give_up() -> None:
        raise TimeoutError

    with storage.locked(tmp_path, "key"), pytest.raises(TimeoutError), storage.locked(tmp_path, "key", give_up):
        pass


def _hold_for_ever(store: Path, started: Any) -> None:
    with storage.locked(store, "key"):
        started.set()
        threading.Event().wait(60)


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    holder = context.Process(target=_hold_for_ever, args=(tmp_path, started))
    holder.start()
    assert started.wait(60)
    holder.kill()
    holder.join(30)

    def enter() -> bool:
        with storage.locked(tmp_path, "key"):
            return True

    assert until(enter)


@pytest.mark.parametrize(
    ("size", "said"), [(12, "12 bytes"), (2048, "2 KiB"), (3 << 20, "3 MiB"), (3 << 29, "1.5 GiB")]
)
def test_sizes_read_like_sizes(size: int, said: str) -> None:
    assert storage.readable(size) == said
