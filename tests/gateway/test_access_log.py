"""The access log: what a line says and never says, and that it holds nobody up."""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway import access_log
from gateway.access_log import AccessLog, Mode, to
from tests.gateway.requests import ended

NAMES = {5: "tiny"}
SECRET = "tir_01234567_abcdefghijklmnopqrstuvwxyz"


class Reader:
    """Where a log goes in a test; `shut` refuses as a full disk does, `stuck` takes nothing until let go."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.shut = False
        self.stuck = threading.Event()
        self.stuck.set()

    def __call__(self, lines: Sequence[bytes]) -> None:
        self.stuck.wait(10)
        if self.shut:
            raise OSError("No space left on device")
        assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
        self.lines += map(json.loads, lines)


def logged(mode: Mode, *batch: Any, **options: Any) -> list[dict[str, Any]]:
    reader = Reader()
    log = AccessLog(mode, reader, **options)
    log.fold(batch, NAMES)
    log.close()
    return reader.lines


def test_a_line_says_how_a_request_went() -> None:
    waited = {"queue_us": 1_500, "cold": True, "first_byte_us": 9_000}
    one = ended(503, code="queue_timeout", instance="tiny-0", prompt_tokens=4, **waited)
    assert logged(Mode.ERRORS, one) == [
        {
            "at": "2026-03-01T09:07:30.125Z", "request_id": "r-1", "endpoint": "tiny", "revision_id": 7,
            "key_id": 1, "method": "POST", "path": "/v1/chat/completions", "status": 503,
            "code": "queue_timeout", "instance": "tiny-0", "stream": False, "cold_start": True,
            "queue_ms": 1.5, "connect_ms": 0.0, "first_byte_ms": 9.0, "ttft_ms": None, "total_ms": 20.0,
            "prompt_tokens": 4, "completion_tokens": 0, "estimated": False, "bytes_in": 0, "bytes_out": 0,
        }
    ]  # fmt: skip


def test_each_mode_tells_what_it_promises() -> None:
    batch = [ended(200), ended(404), ended(499), ended(502)]
    seen = {mode: [line["status"] for line in logged(mode, *batch)] for mode in Mode}
    assert seen == {Mode.OFF: [], Mode.ERRORS: [404, 499, 502], Mode.ALL: [200, 404, 499, 502]}


def test_no_secret_and_no_query_is_told() -> None:
    paths = [f"v1/models/{SECRET}", f"v1/models?key={SECRET}", "v1/" + "x" * 5_000]
    lines = logged(Mode.ALL, *(ended(path=path) for path in paths))
    assert SECRET not in json.dumps(lines)
    assert lines[1]["path"] == "/v1/models"
    assert len(lines[2]["path"]) == 300


def test_addresses_are_told_only_where_that_was_wished() -> None:
    one = ended(address="203.0.113.9")
    assert "203.0.113.9" not in json.dumps(logged(Mode.ALL, one))
    assert logged(Mode.ALL, one, addresses=True)[0]["address"] == "203.0.113.9"


def test_a_reader_that_is_stuck_holds_nobody_up_and_what_found_no_room_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_log, "MOST_LINES", 10)
    reader = Reader()
    reader.stuck.clear()
    log = AccessLog(Mode.ALL, reader)
    log.fold([ended(request_id="first")], NAMES)
    log.send()
    for number in range(30):
        log.fold([ended(request_id=str(number))], NAMES)
        log.send()
    reader.stuck.set()
    log.close()
    assert [line.get("request_id") for line in reader.lines] == ["first", *map(str, range(10)), None]
    assert reader.lines[-1] == {"dropped": 20}


def test_a_full_disk_loses_lines_and_says_how_many_once_there_is_room() -> None:
    reader = Reader()
    reader.shut = True
    log = AccessLog(Mode.ALL, reader)
    log.fold([ended(), ended()], NAMES)
    log.close()
    reader.shut = False
    log.fold([ended(request_id="after")], NAMES)
    log.close()
    assert [line.get("request_id", line.get("dropped")) for line in reader.lines] == ["after", 2]


def test_a_file_may_be_moved_away_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    write = to(str(path))
    write([b"one\n"])
    path.rename(tmp_path / "access.log.1")
    write([b"two\n", b"three\n"])
    assert path.read_bytes() == b"two\nthree\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_standard_output_gets_whole_lines_in_portions_that_a_pipe_takes_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[bytes] = []

    def write(file: int, data: bytes) -> int:
        taken.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    lines = [b"%d %s\n" % (number, b"x" * 600) for number in range(40)]
    to("")(lines)
    assert b"".join(taken) == b"".join(lines)
    assert all(part.endswith(b"\n") and len(part) <= 4096 for part in taken)
