"""How local instances live, die and are found again, whoever started them."""

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endpoints.runtimes import scan
from endpoints.runtimes.base import Phase, Rejected, Unavailable
from endpoints.runtimes.folder import Fate, Folder
from endpoints.runtimes.process import ProcessRuntime
from tests.endpoints.runtimes.conftest import processes, workload
from tests.endpoints.runtimes.contract import HELLO, said, settled, the_one
from tests.wait import until

New = Callable[..., ProcessRuntime]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes() != b""
    except OSError:
        return False


def test_a_program_that_is_not_there_ends_with_its_reason(process: ProcessRuntime) -> None:
    process.engine = ("/nonexistent/engine",)
    process.apply(workload(1))
    one = the_one(process, "exited")
    assert one.exit_code == 127
    assert "cannot start /nonexistent/engine" in one.message


def test_kill_9_of_the_supervisor_leaves_no_orphan(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    name = the_one(process, "running").name
    live = processes(process, name)
    assert live.supervisor is not None
    os.kill(live.supervisor, signal.SIGKILL)
    one = the_one(process, "exited")
    assert one.exit_code is None
    assert "supervisor was killed" in one.message
    assert one.finished_at is not None
    assert not alive(live.engines[0])


def test_an_unseen_end_keeps_the_time_it_was_first_noticed(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    name = the_one(process, "running").name
    supervisor = processes(process, name).supervisor
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    first = the_one(process, "exited")
    assert process.observe()[name] == first


def test_what_another_forgets_while_it_is_looked_at_is_simply_gone(
    process: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.apply(workload(1))
    supervisor = processes(process, the_one(process, "running").name).supervisor
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)

    def forgotten(folder: Folder) -> bool:
        shutil.rmtree(folder.path)
        return False

    monkeypatch.setattr(Folder, "leaving", forgotten)
    until(lambda: process.observe() == {}, what="nothing to be there")


def test_a_grandchild_that_outlives_its_supervisor_is_ended(process: ProcessRuntime) -> None:
    process.apply(workload(1, env={"BEHAVE": "fork"}))
    name = the_one(process, "running").name
    until(lambda: len(processes(process, name).engines) == 2)
    engines = processes(process, name).engines
    process.apply(workload(0))
    the_one(process, "exited")  # whoever sees the end has ended the rest, though the supervisor may still be there
    until(lambda: not any(alive(pid) for pid in engines), what="an end of the grandchild")


def test_one_that_is_still_starting_stops_when_asked(process: ProcessRuntime, tmp_path: Path) -> None:
    process.apply(workload(1, env={"BEHAVE": "slow", "GO": str(tmp_path / "never")}))
    name = the_one(process, "starting").name
    until(lambda: processes(process, name).engines)
    os.kill(processes(process, name).engines[0], signal.SIGKILL)
    assert the_one(process, "exited").exit_code == 137


def test_a_newborn_is_seen_at_once(process: ProcessRuntime) -> None:
    for number in range(1, 13):
        process.apply(workload(number))
        assert all(alive(pid) for pid in process._children)


def test_stop_right_after_start_leaves_nothing_behind(process: ProcessRuntime) -> None:
    process.apply(workload(4))
    process.apply(workload(0))
    for one in settled(process, "exited", 4).values():
        assert one.message == "stopped when asked"
    until(lambda: not scan.live(process.data), what="the supervisors to go, which wrote that down")


def test_one_that_ignores_the_stop_is_killed_after_the_grace(new_process: New) -> None:
    process = new_process(grace=0.2)
    process.apply(workload(1, env={"BEHAVE": "deaf"}))
    settled(process, "running", 1)
    process.apply(workload(0))
    one = the_one(process, "exited")
    assert one.exit_code == 137
    assert one.message == "killed: it did not stop in time"


def test_one_that_is_leaving_is_shown_but_not_counted(new_process: New) -> None:
    process = new_process(grace=60)
    process.apply(workload(1, env={"BEHAVE": "deaf"}))
    old = the_one(process, "running").name
    process.apply(workload(0))
    assert process.observe()[old].phase == Phase.RUNNING
    new_process(grace=60).apply(workload(1))
    assert old in settled(process, "running", 2)


def test_a_lost_record_does_not_hide_what_runs(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    name = the_one(process, "running").name
    said(process, name, HELLO)  # so that nothing is written while it is removed
    Folder(process.root / name).remove()
    one = process.observe()[name]
    assert (one.owner, one.revision, one.phase) == ("endpoint-7", 1, Phase.STARTING)
    process.apply(workload(1))
    assert list(process.observe()) == [name]


def test_a_vanished_instance_is_simply_gone(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    one = the_one(process, "running")
    process.apply(workload(0))
    settled(process, "exited", 1)
    until(lambda: not scan.live(process.data), what="the supervisor to go, which wrote that down")
    Folder(process.root / one.name).remove()
    assert process.observe() == {}


def test_an_end_is_forgotten_whole_though_its_supervisor_is_still_there(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    name = the_one(process, "running").name
    live = processes(process, name)
    assert live.supervisor is not None
    os.kill(live.supervisor, signal.SIGSTOP)  # a busy machine, made sure of
    Folder(process.root / name).settle(Fate(exit_code=0, asked=True, finished_at=time.time()))
    process.forget(name)
    assert process.observe() == {}
    assert not alive(live.supervisor)


def test_one_torn_record_does_not_stop_the_others_being_seen(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    name = the_one(process, "running").name
    torn = process.root / "endpoint-9-r1-torns"
    torn.mkdir()
    (torn / "instance.json").write_text('{"data": ')
    assert list(process.observe()) == [name]


def test_a_missing_data_folder_is_an_outage_not_an_empty_answer(process: ProcessRuntime, tmp_path: Path) -> None:
    process.apply(workload(1))
    settled(process, "running", 1)
    away = process.root.with_name("away")
    process.root.rename(away)
    with pytest.raises(Unavailable):
        process.observe()
    away.rename(process.root)
    assert len(process.observe()) == 1


def test_unlistable_processes_are_an_outage(process: ProcessRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as blind:
        blind.setattr(scan, "PROC", Path("/nonexistent/proc"))
        with pytest.raises(Unavailable, match="cannot list the processes"):
            process.observe()
        with pytest.raises(Unavailable):
            process.capacity()


def test_a_machine_that_cannot_start_processes_is_an_outage(
    process: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "posix_spawn", refuse)
    with pytest.raises(Unavailable, match="temporarily unavailable"):
        process.apply(workload(1))
    assert process.observe() == {}


def test_an_ended_child_does_not_stay_as_a_zombie(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    supervisor = processes(process, the_one(process, "running").name).supervisor
    process.apply(workload(0))
    settled(process, "exited", 1)
    until(lambda: process.observe() and not Path(f"/proc/{supervisor}").exists())


def test_an_instance_is_out_of_reach_of_the_terminal(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    live = processes(process, the_one(process, "running").name)
    assert live.supervisor is not None
    assert os.getsid(live.supervisor) == live.supervisor
    os.killpg(live.supervisor, signal.SIGINT)
    assert len(settled(process, "running", 1)) == 1


def test_the_address_is_where_the_engine_listens(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    address = the_one(process, "running").address
    assert address is not None
    socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])), timeout=30).close()


def test_the_engine_gets_the_revisions_settings(process: ProcessRuntime) -> None:
    process.apply(workload(1))
    config = process.root / the_one(process, "running").name / "config.json"
    assert json.loads(config.read_text())["alias"] == "demo"
    assert json.loads(config.read_text())["context_length"] == 2048
    assert config.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"owner": "../escape"}, "can't own an instance"),
        ({"gpus": 1}, "no GPU"),
        ({"replicas": -1}, "below 0"),
        ({"env": {"LD_PRELOAD": "/tmp/x.so"}}, "LD_PRELOAD"),
        ({"env": {"TIR_OWNER": "endpoint-1"}}, "TIR_OWNER"),
        ({"secrets": {"PYTHONPATH": "/tmp"}}, "PYTHONPATH"),
        ({"env": {"A=B": "c"}}, "A=B"),
        ({"env": {"A": "b\0c"}}, "zero byte"),
    ],
)
def test_what_can_never_run_is_rejected_in_words(
    process: ProcessRuntime, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(Rejected, match=words):
        process.apply(workload(**{"replicas": 1, **changes}))
    assert process.observe() == {}


def test_a_name_from_outside_never_leaves_the_folder(process: ProcessRuntime) -> None:
    assert process.logs("../../etc", 0, 10) == []
    process.forget("..")
    assert process.root.is_dir()
