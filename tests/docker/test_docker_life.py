"""How containers live and end, and what is said of them."""

from __future__ import annotations

import base64
from dataclasses import replace

import httpx
import pytest

from endpoints.runtimes.base import Command, Image, Phase, Rejected, Unavailable
from endpoints.runtimes.docker.logs import Anchor
from endpoints.runtimes.docker.runtime import DockerRuntime
from tests.docker.conftest import IMAGE, New, workload
from tests.docker.engine import Engine
from tests.endpoints.runtimes.contract import HELLO, OWNER, ended, said, settled, the_one
from tests.wait import until

SECRET = "hf_abcdefghijklmnop"


def test_memory_that_runs_out_has_its_own_reason(docker_runtime: DockerRuntime) -> None:
    docker_runtime.apply(workload(1, behave="hungry"))
    one = the_one(docker_runtime, "exited")
    assert (one.reason, one.exit_code) == ("OOMKilled", 137)
    assert one.message == "killed: it needed more memory than its limit"


def test_one_that_ignores_the_stop_is_killed_after_the_grace(new_docker: New) -> None:
    runtime = new_docker(grace=0.2)
    runtime.apply(workload(1, behave="deaf"))
    name = the_one(runtime, "running").name
    said(runtime, name, HELLO)
    runtime.apply(workload(0))
    one = the_one(runtime, "exited")
    assert (one.exit_code, one.message, one.asked) == (137, "killed: it did not stop in time", True)


def test_one_that_is_leaving_is_shown_but_not_counted(new_docker: New) -> None:
    runtime = new_docker(grace=600)
    runtime.apply(workload(1, behave="deaf"))
    old = the_one(runtime, "running").name
    said(runtime, old, HELLO)
    runtime.apply(workload(0))
    assert runtime.observe()[old].phase == Phase.RUNNING
    new_docker(grace=600).apply(workload(1))
    assert old in settled(runtime, "running", 2)


def test_what_was_made_but_not_started_is_started_at_the_next_ask(
    docker_runtime: DockerRuntime, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(DockerRuntime, "_start", lambda *_: None)
        docker_runtime.apply(workload(1))
    (name,) = docker_runtime.observe()
    assert docker_runtime.observe()[name].phase == Phase.STARTING
    docker_runtime.apply(workload(1))
    assert set(settled(docker_runtime, "running", 1)) == {name}


def test_a_program_that_is_not_there_is_its_end_and_says_so(docker_runtime: DockerRuntime) -> None:
    image = Image(IMAGE, command=("/no/such/program",))
    docker_runtime.apply(workload(1, command=Command(engine="custom", model="", alias="demo", image=image)))
    one = the_one(docker_runtime, "exited")
    assert one.exit_code == 127
    assert "/no/such/program" in one.message
    docker_runtime.forget(one.name)
    assert docker_runtime.observe() == {}


def test_nobody_in_a_container_is_root_or_writes_outside_memory(docker_runtime: DockerRuntime) -> None:
    look = "id -u; touch /etc/x; touch /tmp/y && echo in memory; grep CapEff /proc/self/status"
    docker_runtime.apply(workload(1, behave="look", env={"LOOK": look}))
    name = the_one(docker_runtime, "running").name
    told = [line.text for line in said(docker_runtime, name, "end of look")]
    assert "65532" in told
    assert "touch: /etc/x: Read-only file system" in told
    assert "in memory" in told
    assert "CapEff:\t0000000000000000" in told


def test_an_instance_can_be_called_where_it_says(docker_runtime: DockerRuntime) -> None:
    docker_runtime.apply(workload(1))
    address = the_one(docker_runtime, "running").address

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/nothing", trust_env=False).status_code == 404
        except httpx.TransportError:
            return False

    until(answers, what=f"an answer from {address}")


def test_secrets_are_masked_in_what_is_shown(docker_runtime: DockerRuntime) -> None:
    encoded = base64.b64encode(SECRET.encode()).decode()
    docker_runtime.apply(workload(1, behave="telltale", env={"WORD": encoded}, secrets={"HF_TOKEN": SECRET}))
    name = the_one(docker_runtime, "running").name
    told = " ".join(line.text for line in said(docker_runtime, name, "end of tale"))
    assert "HF_TOKEN is [secret]" in told
    assert SECRET not in told
    assert encoded.rstrip("=") not in told


def test_pages_of_a_long_log_join_without_loss(docker_runtime: DockerRuntime, new_docker: New) -> None:
    count = 900
    docker_runtime.apply(workload(1, behave="chatty", env={"LINES": str(count)}))
    name = the_one(docker_runtime, "running").name
    until(lambda: docker_runtime.logs(name, count, 1), what="the last line")
    seen, after = [], 0
    while page := docker_runtime.logs(name, after, 350):
        seen += page
        after = page[-1].offset
    assert [line.offset for line in seen] == list(range(1, count + 2))
    assert seen[-1].text == f"line {count}"
    again = new_docker()
    assert again.logs(name, -3, 3) == seen[-3:]
    assert again.logs(name, 10, 2) == seen[10:12]


def test_lines_that_the_engine_dropped_show_as_a_jump(docker_runtime: DockerRuntime) -> None:
    docker_runtime.apply(workload(1, behave="chatty", env={"LINES": "5"}))
    name = the_one(docker_runtime, "running").name
    container = docker_runtime.hosts[0].client.inspect_container(name)["Id"]
    said(docker_runtime, name, "line 5")
    docker_runtime.anchors.put(container, Anchor(100, "2000-01-01T00:00:00.000000000", 1))
    assert [line.offset for line in docker_runtime.logs(name, 100, 9)] == [102, 103, 104, 105, 106, 107]


def test_what_it_uses_is_measured(docker_runtime: DockerRuntime) -> None:
    docker_runtime.apply(workload(1))
    name = the_one(docker_runtime, "running").name
    first, second = docker_runtime.usage()[name], docker_runtime.usage()[name]
    assert first.cpu_millis is None
    assert second.cpu_millis is not None
    assert second.cpu_millis >= 0
    assert 0 < (second.memory_bytes or 0) < 64 << 20
    assert second.network_rx is not None
    assert second.gpu_percent is second.gpu_memory_bytes is None


def test_more_than_a_host_has_is_an_outage_with_numbers(docker_runtime: DockerRuntime) -> None:
    with pytest.raises(Unavailable, match=r"needs 0\.1 vCPU and 4096 GiB: test has"):
        docker_runtime.apply(workload(1, memory_bytes=4 << 40))
    assert docker_runtime.observe() == {}


def test_a_model_that_is_not_there_is_refused_in_words(docker_runtime: DockerRuntime) -> None:
    wanted = workload(1)
    assert wanted.command
    command = replace(wanted.command, model="/no/such/model/x.gguf")
    with pytest.raises((Rejected, Unavailable), match="/no/such/model"):
        docker_runtime.apply(replace(wanted, command=command))
    assert docker_runtime.observe(OWNER) == {}
    ended(docker_runtime)
