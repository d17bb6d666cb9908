"""`up` from outside, with stand-ins for the console's own processes; PostgreSQL and Valkey are real."""

import os
import signal
import socket
import sys

import psutil

from tests.up.house import House
from tests.wait import until

STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('here', flush=True)",
]
STUBBORN[-1] += "\ntime.sleep(600)"


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_says_where_the_console_is_how_to_log_in_and_where_the_data_lives(house: House) -> None:
    house.stage()
    house.wait_ready()
    console, gateway, login, data = house.said.strip().splitlines()[-4:]
    assert console.split()[1] == f"http://127.0.0.1:{house.console}"
    assert gateway.split()[1] == f"http://127.0.0.1:{house.gateway}"
    assert login.split()[2] == f"http://127.0.0.1:{house.console}/login/link/for-you/"
    assert data.split()[1] == str(house.data)


def test_ctrl_c_ends_everything_in_order_and_is_no_error(house: House) -> None:
    house.stage()
    house.wait_ready()
    pids = house.processes()
    assert {"postgres", "valkey", "console", "gateway"} <= pids.keys()
    assert house.end(signal.SIGINT) == 0, house.said
    assert all(gone(pid) for pid in pids.values())
    assert not (house.data / "postgres" / "postmaster.pid").exists()


def test_a_program_that_will_not_end_is_killed(house: House) -> None:
    house.stage(workers={"stubborn": STUBBORN})
    house.wait_ready()
    house.wait_said("here")
    pid = house.processes()["stubborn"]
    assert house.end(signal.SIGTERM) == 0, house.said
    assert gone(pid)


def test_a_program_that_dies_is_started_again_and_that_is_said(house: House) -> None:
    house.stage()
    house.wait_ready()
    before = house.processes()["gateway"]
    os.kill(before, signal.SIGKILL)
    house.wait_said("the gateway was ended by SIGKILL; it starts again in 0.5 s")
    until(lambda: house.healthy(house.gateway), what="the gateway to answer again")
    assert house.processes()["gateway"] != before


def test_a_program_that_dies_again_and_again_is_never_given_up(house: House) -> None:
    house.stage(workers={"hapless": [sys.executable, "-c", "raise SystemExit('alas')"]})
    house.wait_ready()
    house.wait_said("the hapless ended by itself with status 1; it starts again in 4 s")
    house.wait_said("it starts again in 8 s")
    assert house.healthy(house.console)


def test_what_a_program_says_bears_its_name_and_is_kept(house: House) -> None:
    house.stage(workers={"talker": [sys.executable, "-c", "print('hello there', flush=True); input()"]})
    house.wait_said("talker   | hello there")
    assert "hello there" in (house.data / "logs" / "talker.log").read_text()


def test_a_console_that_never_comes_ends_with_its_last_line(house: House) -> None:
    house.stage(doors={"console": [sys.executable, "-c", "raise SystemExit('no room at the inn')"]})
    assert house.process
    assert house.process.wait(180) == 1
    assert house.said.splitlines()[-1] == "up: The console does not start. Its last line: no room at the inn"


def test_a_second_up_on_the_same_folder_is_refused_in_one_line(house: House) -> None:
    house.stage()
    house.wait_ready()
    assert house.process
    second = house.run("manage.py", "up")
    assert second.returncode == 1
    assert second.stderr == (
        f"up: Another `up` (process {house.process.pid}) already runs on {house.data}. "
        "Stop it first, or set DATA_DIR to another folder.\n"
    )
    assert house.healthy(house.console)


def test_a_taken_port_is_named_with_who_has_it_and_what_to_change(house: House) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", house.gateway))
        holder.listen()
        refused = house.run("manage.py", "up", "--no-input")
    assert refused.returncode == 1
    name = psutil.Process().name()
    assert refused.stderr == (
        f"up: Port {house.gateway} for the gateway is taken by {name} (process {os.getpid()}). "
        "Set GATEWAY_PORT to a free port.\n"
    )


def test_a_folder_that_can_not_be_written_to_is_one_line(house: House) -> None:
    house.data.write_text("a file, not a folder")
    house.data = house.data / "data"
    refused = house.run("manage.py", "up")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"up: The data folder {house.data} can't be used: Not a directory. "
        "Set DATA_DIR to a folder you may write to.\n"
    )


def test_a_killed_up_leaves_nothing_running_and_the_next_one_starts(house: House) -> None:
    house.stage(workers={"stubborn": STUBBORN})
    house.wait_ready()
    house.wait_said("here")
    pids = house.processes()
    house.end(signal.SIGKILL)
    until(lambda: gone(pids["console"]) and gone(pids["gateway"]), what="console and gateway to end by themselves")
    assert not gone(pids["stubborn"])

    house.stage()
    house.wait_ready()
    assert "ended stubborn, which a killed `up` had left running" in house.said
    assert all(gone(pid) for pid in pids.values())
    assert house.healthy(house.console)


def test_a_killed_database_server_is_no_obstacle_either(house: House) -> None:
    house.stage()
    house.wait_ready()
    pids = house.processes()
    os.kill(pids["postgres"], signal.SIGKILL)
    house.end(signal.SIGKILL)
    house.stage()
    house.wait_ready()
    assert house.healthy(house.gateway)


def test_services_named_by_a_url_are_not_started(house: House) -> None:
    os_environ = house.environ
    urls = {"DATABASE_URL": os.environ["DATABASE_URL"], "VALKEY_URL": os.environ["VALKEY_URL"]}
    house.environ = lambda: os_environ() | urls  # type: ignore[method-assign]
    house.stage()
    house.wait_ready()
    assert house.processes().keys() == {"console", "gateway"}
    assert not (house.data / "postgres").exists()


def test_keys_stay_the_same_and_are_for_nobody_else(house: House) -> None:
    house.stage()
    house.wait_ready()
    files = [house.data / "secret_key", house.data / "encryption_keys"]
    first = [path.read_text() for path in files]
    house.end()
    house.stage()
    house.wait_ready()
    assert [path.read_text() for path in files] == first
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    for private in ("run", "logs"):
        assert (house.data / private).stat().st_mode & 0o077 == 0
