"""What a local instance may use, what it does use, and what is left of the machine."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from endpoints.runtimes import limits, runtime_for
from endpoints.runtimes.gauge import Gauge
from endpoints.runtimes.process import ProcessRuntime
from serving.supervise import out_of_memory
from tests.endpoints.runtimes.conftest import processes, workload
from tests.endpoints.runtimes.contract import the_one

New = Callable[..., ProcessRuntime]


def test_cpu_is_unknown_at_first_and_measured_afterwards(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    name = the_one(process, "running").name
    first = process.usage()[name]
    assert first.cpu_millis is None
    assert first.memory_bytes is not None
    assert first.memory_bytes > 1 << 20
    second = process.usage()[name]
    assert second.cpu_millis is not None
    assert second.cpu_millis >= 0
    assert second.gpu_percent is second.gpu_memory_bytes is second.network_rx is None


def test_a_busy_process_shows_the_cpu_it_takes() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        gauge = Gauge()
        gauge.read({"it": (busy.pid,)})
        seen = 0
        while not seen:
            seen = gauge.read({"it": (busy.pid,)})["it"].cpu_millis or 0
        assert seen > 0
    finally:
        busy.kill()
        busy.wait()


def test_a_process_that_just_ended_uses_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-I", "-S", "-c", "pass"])
    ended.wait()
    assert Gauge().read({"it": (ended.pid,)})["it"].memory_bytes == 0


def test_overcommit_stretches_the_cores_but_not_the_memory(new_process: New) -> None:
    plain, stretched = new_process().capacity(), new_process(cpu_overcommit=3.0).capacity()
    assert stretched.cpu_millis == 3 * plain.cpu_millis
    assert stretched.memory_bytes == plain.memory_bytes


def test_overcommitted_engines_get_fewer_threads(new_process: New, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endpoints.runtimes.process._cores", lambda: 8)
    assert new_process().threads(4000) == 4
    assert new_process().threads(64_000) == 8
    assert new_process().threads(100) == 1
    assert new_process(cpu_overcommit=2.0).threads(4000) == 2


def test_an_overcommit_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ProcessRuntime(tmp_path, cpu_overcommit=0)


def test_capacity_says_why_there_is_no_gpu(process: ProcessRuntime) -> None:
    assert "GPU" in process.capacity().reason or "NVIDIA" in process.capacity().reason


def test_the_engine_is_inside_its_limits(process: ProcessRuntime) -> None:
    if not isinstance(process.limits, limits.Group):
        pytest.skip("no writable cgroup here")
    process.apply(workload(1, memory_bytes=200 << 20, cpu_millis=500))
    name = the_one(process, "running").name
    group = process.limits.memory / name
    (pid,) = processes(process, name).engines
    assert str(pid) in (group / "cgroup.procs").read_text().split()
    bound = "memory.limit_in_bytes" if process.limits.v1 else "memory.max"
    assert int((group / bound).read_text()) == 200 << 20


def test_a_forgotten_instance_leaves_no_cgroup(process: ProcessRuntime) -> None:
    if not isinstance(process.limits, limits.Group):
        pytest.skip("no writable cgroup here")
    process.apply(workload(1))
    name = the_one(process, "running").name
    process.apply(workload(0))
    the_one(process, "exited")
    process.forget(name)
    assert not (process.limits.memory / name).exists()


def test_without_a_cgroup_memory_is_still_limited(process: ProcessRuntime) -> None:
    process.limits = limits.Alone()
    process.apply(workload(1, memory_bytes=256 << 20))
    (pid,) = processes(process, the_one(process, "running").name).engines
    assert psutil.Process(pid).rlimit(psutil.RLIMIT_DATA) == (256 << 20, 256 << 20)
    assert "RLIMIT_DATA" in process.capacity().reason


@pytest.mark.parametrize(
    ("files", "limit_was_reached"),
    [
        ({"memory.events": "max 3\noom 1\noom_kill 1\n"}, True),
        ({"memory.events": "max 0\noom 0\noom_kill 1\n"}, False),
        ({"memory.oom_control": "under_oom 0\noom_kill 1\n", "memory.failcnt": "9\n"}, True),
        ({"memory.oom_control": "under_oom 0\noom_kill 1\n", "memory.failcnt": "0\n"}, False),
        ({"memory.oom_control": "under_oom 0\noom_kill 0\n", "memory.failcnt": "9\n"}, False),
    ],
)
def test_a_kill_because_the_whole_machine_is_short_is_not_the_limits(
    tmp_path: Path, files: dict[str, str], limit_was_reached: bool
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert out_of_memory(str(tmp_path / next(iter(files)))) is limit_was_reached


def test_cgroup_v2_without_delegation_falls_back(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    assert isinstance(limits.detect("x", cgroups=tmp_path, own="0::/not/there"), limits.Alone)


def test_cgroup_v2_that_is_ours_gets_both_limits(tmp_path: Path) -> None:
    own = tmp_path / "own"
    ours = own / "tir-x"
    one = ours / "one"
    one.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    for file in (
        own / "cgroup.subtree_control",
        ours / "cgroup.subtree_control",
        one / "memory.max",
        one / "cpu.max",
    ):
        file.touch()
    group = limits.detect("x", cgroups=tmp_path, own="0::/own")
    assert isinstance(group, limits.Group)
    options = group.create("one", cpu_millis=1500, memory_bytes=4096)
    assert (one / "memory.max").read_text() == "4096"
    assert (one / "cpu.max").read_text() == "150000 100000"
    assert options == [f"join={one}/cgroup.procs", f"oom={one}/memory.events"]
    assert "v2" in group.explain()


def test_runtimes_are_found_by_kind(tmp_path: Path) -> None:
    found = runtime_for("process", {"data_dir": tmp_path, "cpu_overcommit": 2})
    assert isinstance(found, ProcessRuntime)
    assert found.overcommit == 2.0
    with pytest.raises(ValueError, match="no runtime is called 'moon'"):
        runtime_for("moon", {})
    with pytest.raises(ValueError, match="data_dir"):
        runtime_for("process", {"dta_dir": tmp_path})


def test_nothing_in_the_runtimes_needs_django() -> None:
    code = "import endpoints.runtimes.process, sys; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=os.getcwd()).returncode == 0
