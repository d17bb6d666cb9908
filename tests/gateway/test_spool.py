"""The spool: what was answered is there after any end, once, and goes only when the database has it."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.ended import Ended
from gateway.meter import Meter
from gateway.spool import Spool, claim, decode, encode
from gateway.totals import Record

AT = 1_764_000_000.0 - 1_764_000_000 % 900


def ended(**changes: Any) -> Ended:
    return Ended(record(**changes), "r-1", "POST", "v1/chat/completions")


def record(at: float = AT, **more: Any) -> Record:
    return Record(at, endpoint_id=1, revision_id=2, key_id=3, status=200, latency_us=5_000, **more)


def meter(folder: Path, at: float = AT) -> Meter:
    own, left = claim(folder)
    return Meter(own, left, clock=lambda: at)


def segments(spool: Spool) -> list[Path]:
    return sorted(spool.folder.glob("*.spool"))


def written(of: Meter) -> None:
    """What a flush that worked does."""
    of.dirty()
    of.written()


def test_a_record_comes_back_as_it_was() -> None:
    one = Record(AT + 0.25, 1, 2, 3, 499, 5, 4, 3, 2, estimated=True, bytes_in=1, bytes_out=0)
    assert decode(encode(one).rstrip()) == one


def test_the_next_start_finds_what_the_last_answered_under_the_same_source(tmp_path: Path) -> None:
    first = meter(tmp_path)
    for number in range(3):
        first.record(ended(prompt_tokens=number))
    first.close()
    again = meter(tmp_path)
    assert again.totals.source == first.totals.source
    assert again.totals.minutes == first.totals.minutes
    assert again.replayed == 3
    assert again.dirty()
    again.close()


def test_a_record_is_on_disk_when_record_returns(tmp_path: Path) -> None:
    one = meter(tmp_path)
    one.record(ended())
    assert list(one.spool.replay()) == [record()]
    one.close()


def test_more_than_a_segment_holds_is_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.spool.SEGMENT_BYTES", 4096)
    one = meter(tmp_path)
    for number in range(300):
        one.record(ended(prompt_tokens=number))
    assert len(segments(one.spool)) > 3
    assert sorted(each.prompt_tokens for each in one.spool.replay()) == list(range(300))
    one.close()


def test_room_that_was_reserved_and_not_used_is_given_back(tmp_path: Path) -> None:
    one = meter(tmp_path)
    one.record(ended())
    one.close()
    assert [path.stat().st_size for path in segments(one.spool)] == [len(encode(record()))]


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    one = meter(tmp_path)
    one.record(ended())
    one.record(ended(prompt_tokens=7))
    one.close()
    [path] = segments(one.spool)
    path.write_bytes(path.read_bytes()[:-5])
    again = meter(tmp_path)
    assert again.replayed == 1
    again.close()


@pytest.mark.parametrize("line", [b"", b"{}", b"[1,2]", b"null", b"[", b"\xff"])
def test_a_line_that_is_no_record_is_passed_over(line: bytes) -> None:
    assert decode(line) is None


def test_a_segment_stays_while_its_quarter_runs_even_when_written(tmp_path: Path) -> None:
    one = meter(tmp_path, AT + 800)
    one.record(ended())
    written(one)
    assert len(segments(one.spool)) == 1
    one.close()


def test_a_segment_goes_once_its_quarter_is_over_and_written(tmp_path: Path) -> None:
    one = meter(tmp_path, AT + 900)
    one.record(ended())
    one.written()
    assert len(segments(one.spool)) == 1  # not written yet
    written(one)
    assert segments(one.spool) == []
    one.close()


def test_a_kill_between_two_removals_replays_no_half_quarter(tmp_path: Path) -> None:
    one = meter(tmp_path)
    one.record(ended())
    one.close()
    (one.spool.folder / "floor").write_text(str(int(AT) + 900))
    again = meter(tmp_path, AT + 1_000)
    assert again.replayed == 0
    assert segments(again.spool) == []
    again.close()


def test_a_clock_set_back_never_reopens_a_quarter_that_was_let_go(tmp_path: Path) -> None:
    now = [AT + 900]
    own, left = claim(tmp_path)
    one = Meter(own, left, clock=lambda: now[0])
    one.record(ended())
    written(one)
    now[0] = AT + 10
    assert one.now() == AT + 900
    one.close()
    again = meter(tmp_path, AT + 10)
    assert again.now() == AT + 900
    again.close()


def test_two_living_gateways_never_share_a_source(tmp_path: Path) -> None:
    one, two = meter(tmp_path), meter(tmp_path)
    assert one.totals.source != two.totals.source
    one.close()
    two.close()


def test_one_that_starts_alone_takes_up_what_all_ended_ones_left(tmp_path: Path) -> None:
    one, two = meter(tmp_path), meter(tmp_path)
    one.record(ended())
    two.record(ended())
    two.record(ended())
    sources = {one.totals.source, two.totals.source}
    one.close()
    two.close()
    alone = meter(tmp_path)
    batch = alone.dirty()
    assert {rows.source for rows in batch} == sources
    assert sum(total.requests for rows in batch for total in rows.minutes.values()) == 3
    alone.written()
    assert [folder.name for folder in tmp_path.iterdir()] == [alone.totals.source]
    alone.close()


def test_what_an_ended_one_left_stays_until_it_is_written(tmp_path: Path) -> None:
    one, two = meter(tmp_path), meter(tmp_path)
    one.record(ended())
    two.record(ended())
    one.close()
    two.close()
    alone = meter(tmp_path)
    alone.put_back(alone.dirty())
    alone.written()
    assert len(list(tmp_path.iterdir())) == 2
    assert alone.unwritten() == 4
    alone.close()


def test_a_full_disk_is_counted_and_said_and_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = meter(tmp_path)
    with monkeypatch.context() as full:

        def refuse(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(os, "posix_fallocate", refuse)
        one.record(ended())
    assert segments(one.spool) == []
    assert (one.spool.failures, one.spool.problem) == (1, "No space left on device")
    one.fold()
    assert [total.requests for total in one.totals.minutes.values()] == [1]
    one.record(ended())
    assert (one.spool.failures, one.spool.problem) == (1, "")
    one.close()
    again = meter(tmp_path)
    assert again.replayed == 1
    again.close()


def test_a_record_that_a_kill_cut_in_two_costs_only_itself(tmp_path: Path) -> None:
    one = meter(tmp_path)
    one.record(ended())
    one.record(ended(prompt_tokens=7))
    [path] = segments(one.spool)
    left = path.read_bytes()  # as a killed process leaves it: its reserved room is still there
    assert len(left) > 4096
    half = len(encode(record(prompt_tokens=7))) // 2
    path.write_bytes(left.rstrip(b"\0")[:-half] + bytes(1000))
    assert [each.prompt_tokens for each in one.spool.replay()] == [0]
    one.close()


def test_a_folder_that_is_no_source_disturbs_nobody(tmp_path: Path) -> None:
    (tmp_path / "stray.txt").write_text("?")
    one = meter(tmp_path)
    one.record(ended())
    assert one.spool.failures == 0
    one.close()
