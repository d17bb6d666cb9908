"""The endurance benchmark's instruments: what they notice, and what they call kept."""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from benchmarks.doors.native import Load, MockEngine, Tools, build, mock_engine
from benchmarks.doors.peers import CHAT, Start
from benchmarks.doors.process import Running
from benchmarks.lasting.churn import Churn, Growth, growth
from benchmarks.lasting.crowd import Crowd
from benchmarks.lasting.ground import Ground
from benchmarks.lasting.hangups import STATES, HangUps, hang_ups
from benchmarks.lasting.readers import Stalled, asked, read_on
from benchmarks.lasting.report import Lasted, bars, rows, summary
from tests.wait import until

linux = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler"
)
MB = 2**20


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return build(tmp_path_factory.mktemp("tools"))


@pytest.fixture
def engine(tools: Tools) -> Iterator[MockEngine]:
    with mock_engine(tools, min(os.sched_getaffinity(0))) as running:
        yield running


@pytest.fixture
def ground(tools: Tools, engine: MockEngine) -> Ground:
    """One whose gateway is the engine itself: the best that there can be."""
    return Ground(tools, engine, cast("Running", None), Start((), "", engine.port, path=CHAT))


@linux
class TestEngine:
    @pytest.mark.parametrize("state", STATES)
    def test_it_knows_who_hung_up_and_when(self, ground: Ground, state: str) -> None:
        seen = hang_ups(ground, state, times=2)
        assert seen.missed == 0
        assert 0 < seen.p50_ms <= seen.max_ms
        assert ground.engine.seen().hung_up == 2
        assert ground.engine.seen().open == 0

    def test_who_stays_until_the_end_has_not_hung_up(self, ground: Ground) -> None:
        with socket.create_connection(("127.0.0.1", ground.engine.port), timeout=30) as line:
            line.sendall(ground.request(stream=True, max_tokens=3))
            assert read_on(line)
        assert (ground.engine.seen().hung_up, ground.engine.seen().open) == (0, 0)

    def test_a_flood_waits_for_its_reader_and_then_comes_whole(self, ground: Ground) -> None:
        engine, before = ground.engine, -1
        with asked(ground, 40) as line:
            until(lambda: engine.seen().flooded, what="the flood to begin")
            while engine.seen().flooded != before:  # until nothing moves any more
                before = engine.seen().flooded
                time.sleep(0.2)
            assert 0 < before < 30 * MB
            assert engine.seen().open == 1
            assert read_on(line)
        assert engine.seen().flooded > 35 * MB
        until(lambda: engine.seen().open == 0, what="the flood to be over")

    def test_a_stream_that_breaks_off_is_not_whole(self) -> None:
        here, there = socket.socketpair()
        with here, there:
            there.sendall(b"data: {}\n\n")
            there.shutdown(socket.SHUT_WR)
            assert not read_on(here)


LOAD = Load(1000, 90_000, 20.0, 0, 0, 1.0, 1.0, 1.0, 1.0, 200.0, 900.0, 400, "")
KEPT = Lasted(
    hang_ups=dict.fromkeys(STATES, HangUps(p50_ms=0.3, max_ms=12.0, times=30, missed=0)),
    stalled=Stalled(before_mb=30, grown_mb=0.6, way_mb=7, stopped=True, whole=True),
    crowd=Crowd(LOAD, LOAD, memory_kb=30, cpu_chunk_us=30, slow_mb=4, slow_lost=False),
    streams=1000,
    churn=Churn(
        minutes=10,
        memory=Growth(40, 46),
        heap=Growth(36, 38),
        samples=[36, 38],
        visits={"newcomer": 5},
        requests=7,
        wrong={},
        idle=True,
        files_left=0,
    ),
)


class TestReport:
    @pytest.mark.parametrize(("minutes", "grown"), [(10, 8.0), (2, 2 / 3), (1.5, 1 / 3)])
    def test_growth_is_between_the_second_minute_and_the_end(self, minutes: float, grown: float) -> None:
        sizes = [(0.0, 1.0), *((second, 30 + second / 60) for second in range(1, int(minutes * 60)))]
        found = growth([*sizes, (65.0, 500.0)], minutes * 60)  # one odd look changes nothing
        assert found.mb == pytest.approx(grown, abs=0.05)
        assert found.per_cent == pytest.approx(found.mb / found.early_mb * 100)

    def test_all_is_kept(self) -> None:
        assert set(bars(KEPT).values()) == {True}
        told = summary(KEPT, load=1.0)
        assert json.loads(json.dumps(told)) == told
        assert told["churn"]["heap"]["growth_mb"] == 2
        assert not [row for row in rows(KEPT) if "NOT" in row or "wrong" in row]

    @pytest.mark.parametrize(
        ("part", "changes", "bar"),
        [
            ("stalled", {"grown_mb": 2.1}, "stalled reader <= 2 MB"),
            ("stalled", {"stopped": False}, "stalled reader <= 2 MB"),
            ("stalled", {"whole": False}, "stalled reader gets all"),
            ("crowd", {"load": replace(LOAD, errors=1)}, "1000 streams whole"),
            ("crowd", {"load": replace(LOAD, answered=999)}, "1000 streams whole"),
            ("churn", {"heap": Growth(36, 40)}, "churn is flat"),
            ("churn", {"wrong": {"newcomer: refused": 1}}, "churn fails nobody"),
            ("churn", {"idle": False}, "churn leaves nothing"),
            ("churn", {"files_left": 1}, "churn leaves nothing"),
        ],
    )
    def test_what_is_broken_is_said(self, part: str, changes: dict[str, Any], bar: str) -> None:
        broken = replace(KEPT, **{part: replace(getattr(KEPT, part), **changes)})
        assert [name for name, kept in bars(broken).items() if not kept] == [bar]

    @pytest.mark.parametrize("seen", [HangUps(1, 101, 30, 0), HangUps(1, 2, 30, 1)])
    def test_one_late_or_missed_hang_up_breaks_the_bar(self, seen: HangUps) -> None:
        broken = replace(KEPT, hang_ups={**KEPT.hang_ups, "mid-stream": seen})
        assert [name for name, kept in bars(broken).items() if not kept] == ["hang-up <= 100 ms"]
