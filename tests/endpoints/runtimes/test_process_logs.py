"""What a local instance writes can be read to the end, from anywhere, without its secrets."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from endpoints.runtimes.base import LogLine
from endpoints.runtimes.folder import Folder
from endpoints.runtimes.process import ProcessRuntime
from serving.supervise import SEGMENTS, Log, hidden
from tests.endpoints.runtimes.conftest import workload
from tests.endpoints.runtimes.contract import the_one
from tests.wait import until

SECRET = "hf_abcdefghijklmnop?>"


def said(process: ProcessRuntime, name: str) -> list[LogLine]:
    """Its lines, once there are some: the supervisor writes them down after the engine has said them."""
    return until(lambda: process.logs(name, 0, 10), what="a line in the log")


def tale(process: ProcessRuntime, name: str) -> str:
    """All that a telltale says. Its two streams come by two ways: the last word of one may be there first."""

    def told() -> str:
        words = " ".join(line.text for line in process.logs(name, 0, 10))
        return words if "end of tale" in words and "TIR_INSTANCE" in words else ""

    return until(told, what="the tale to be told")


def test_lines_come_with_time_stream_and_number(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    name = the_one(process, "running").name
    (line,) = said(process, name)
    assert (line.text, line.stream, line.offset) == ("hello from the engine", "stdout", 1)
    assert abs(datetime.now(UTC) - line.at) < timedelta(minutes=1)


def test_a_reader_resumes_where_it_left_off_also_after_the_end(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    name = the_one(process, "running").name
    last = said(process, name)[-1].offset
    assert process.logs(name, last, 10) == []
    process.apply(workload(0))
    the_one(process, "exited")
    assert [line.text for line in process.logs(name, last, 10)] == ["goodbye"]


def test_a_log_is_bounded_and_its_gap_shows(process: ProcessRuntime) -> None:
    count = 12_000
    process.apply(workload(1, env={"BEHAVE": "chatty", "LINES": str(count)}))
    name = the_one(process, "running").name
    until(lambda: process.logs(name, count, 1), what="the last line")
    segments = list((process.root / name / "log").iterdir())
    assert len(segments) == SEGMENTS
    first = process.logs(name, 1, 3)
    assert first[0].offset > 2
    assert [line.offset for line in first] == [first[0].offset + nth for nth in range(3)]
    assert first[0].text.startswith(f"line {first[0].offset - 2} ")


def test_pages_of_a_long_log_join_without_loss(process: ProcessRuntime) -> None:
    process.apply(workload(1, env={"BEHAVE": "chatty", "LINES": "3000"}))
    name = the_one(process, "running").name
    until(lambda: process.logs(name, 3000, 1), what="the last line")
    seen, after = [], 0
    while page := process.logs(name, after, 700):
        seen += [line.offset for line in page]
        after = page[-1].offset
    assert seen == list(range(1, 3002))


def test_the_last_lines_are_one_call_even_across_segments(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), [])
    for number in range(1, 8):
        log.write("o", f"line {number}".encode())
        log.room = 0 if number == 5 else log.room
    folder = Folder(tmp_path)
    assert [line.text for line in folder.lines(-3, 10)] == ["line 5", "line 6", "line 7"]
    assert len(folder.lines(-100, 100)) == 7


def test_secrets_never_reach_the_disk(process: ProcessRuntime) -> None:
    process.apply(workload(1, env={"BEHAVE": "telltale"}, secrets={"HF_TOKEN": SECRET}))
    name = the_one(process, "running").name
    told = tale(process, name)
    assert "[secret]" in told
    assert "HF_TOKEN" in told
    for file in process.root.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_secrets_are_not_in_any_command_line(process: ProcessRuntime) -> None:
    process.apply(workload(1, secrets={"HF_TOKEN": SECRET}))
    the_one(process, "running")
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert SECRET.encode() not in entry.read_bytes()
        except OSError:
            continue


def test_an_instance_knows_nothing_of_the_consoles_own_settings(
    process: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "the-consoles-own-key")
    monkeypatch.setenv("DATABASE_URL", "postgresql://somewhere")
    process.apply(workload(1, env={"BEHAVE": "telltale"}))
    name = the_one(process, "running").name
    told = tale(process, name)
    assert "the-consoles-own-key" not in told
    assert "DATABASE_URL" not in told


def test_a_secret_is_masked_in_base64_too(tmp_path: Path) -> None:
    environ = {"TIR_SECRETS": "TOKEN,SHORT", "TOKEN": SECRET, "SHORT": "a"}
    log = Log(str(tmp_path / "log"), hidden(environ))
    encoded = base64.b64encode(SECRET.encode()).decode()
    log.write("e", f"basic {encoded} url {base64.urlsafe_b64encode(SECRET.encode()).decode()} a".encode())
    (line,) = Folder(tmp_path).lines(0, 1)
    assert encoded.rstrip("=") not in line.text
    assert line.text.count("[secret]") == 2
    assert line.text.endswith(" a")


def test_a_full_disk_costs_lines_and_says_so_by_a_gap(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), [])
    log.write("o", b"before")
    log.folder = str(tmp_path / "not there")
    log.room = 0
    log.write("o", b"lost")
    log.folder = str(tmp_path / "log")
    log.write("o", b"after")
    assert [(line.offset, line.text) for line in Folder(tmp_path).lines(0, 9)] == [(1, "before"), (3, "after")]


def test_bytes_that_are_no_text_are_shown_not_choked_on(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), [])
    log.write("o", b"caf\xe9 \x1b[31mred")
    (line,) = Folder(tmp_path).lines(0, 1)
    assert line.text.startswith("caf\N{REPLACEMENT CHARACTER} ")


def test_an_instance_that_has_not_said_anything_yet_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    assert Folder(tmp_path).lines(0, 10) == []
    assert Folder(tmp_path).lines(-10, 10) == []
